"""Distances between ordered classes, compared with scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from distilora.tasks.metrics.ordinal import distance_metrics, resampled_distances

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 5, 400)
PREDICTED = np.clip(TRUE + RNG.integers(-1, 2, 400), 0, 4)


def test_they_are_scikit_learns() -> None:
    measured = distance_metrics(PREDICTED, TRUE, 200)
    assert measured["mae"]["value"] == pytest.approx(mean_absolute_error(TRUE, PREDICTED))
    kappa = cohen_kappa_score(TRUE, PREDICTED, weights="quadratic")
    assert measured["quadratic_kappa"]["value"] == pytest.approx(kappa)
    for metric in measured.values():
        assert metric["low"] < metric["value"] < metric["high"]


def test_a_resample_is_measured_as_its_examples_would_be() -> None:
    from distilora.tasks.metrics.bootstrap import draws

    values = resampled_distances(PREDICTED, TRUE, 5)
    for column, weights in enumerate(next(iter(draws(400, 5))).T):
        chosen = np.repeat(np.arange(400), weights.astype(int))
        kappa = cohen_kappa_score(TRUE[chosen], PREDICTED[chosen], weights="quadratic")
        assert values["quadratic_kappa"][column] == pytest.approx(kappa)


def test_one_class_alone_has_no_kappa() -> None:
    measured = distance_metrics(np.ones(5, np.int64), np.ones(5, np.int64), 100)
    assert measured["quadratic_kappa"] == {"value": None, "low": None, "high": None}
    assert measured["mae"]["value"] == 0
