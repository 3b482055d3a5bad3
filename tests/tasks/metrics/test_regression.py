"""Metrics of numbers, compared with SciPy's and scikit-learn's."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from distilora.tasks.metrics.regression import ranks, regression_metrics

RNG = np.random.default_rng(0)
TRUE = RNG.integers(1, 11, 500).astype(float)
PREDICTED = np.round(TRUE + RNG.normal(0, 2, 500), 1)


def test_they_are_those_of_the_libraries() -> None:
    measured = regression_metrics(PREDICTED, TRUE, 200)
    expected = {
        "spearman": spearmanr(PREDICTED, TRUE).statistic,
        "pearson": pearsonr(PREDICTED, TRUE).statistic,
        "rmse": mean_squared_error(TRUE, PREDICTED) ** 0.5,
        "mae": mean_absolute_error(TRUE, PREDICTED),
        "r2": r2_score(TRUE, PREDICTED),
    }
    assert list(measured) == list(expected)
    for name, value in expected.items():
        assert measured[name]["value"] == pytest.approx(value)
        assert measured[name]["low"] < value < measured[name]["high"]


def test_large_numbers_keep_their_digits() -> None:
    shifted = regression_metrics(PREDICTED + 1e7, TRUE + 1e7)
    for name, metric in regression_metrics(PREDICTED, TRUE).items():
        assert shifted[name]["value"] == pytest.approx(metric["value"], rel=1e-6)


def test_constants_have_no_correlation() -> None:
    measured = regression_metrics(np.ones(9), np.arange(9.0), 100)
    assert measured["spearman"]["value"] is None
    assert measured["pearson"]["value"] is None
    assert regression_metrics(np.arange(9.0), np.ones(9))["r2"]["value"] is None


def test_ties_have_their_mean_rank() -> None:
    assert ranks(np.asarray([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
