"""Paired difference and McNemar's test, against by-hand values, SciPy and a bootstrap of whole examples."""

import numpy as np
import pytest
from scipy.stats import binomtest

from distilora.tasks.metrics.paired import mcnemar, paired_difference


def correct(both: int, a_only: int, b_only: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * both + [True] * a_only + [False] * b_only + [False] * neither
    b = [True] * both + [False] * a_only + [True] * b_only + [False] * neither
    return a, b


def test_the_difference_is_a_minus_b() -> None:
    a, b = correct(60, 20, 5, 15)
    difference = paired_difference(a, b)
    assert difference["value"] == pytest.approx(0.80 - 0.65)
    assert 0 < (difference["low"] or 0) < 0.15 < (difference["high"] or 0)
    assert paired_difference(b, a)["value"] == -difference["value"]
    assert paired_difference(a, b, 0) == {"value": difference["value"], "low": None, "high": None}


def test_the_interval_is_that_of_a_bootstrap_of_examples() -> None:
    a, b = map(np.asarray, correct(600, 80, 40, 280))
    rng = np.random.default_rng(1)
    indices = rng.integers(0, len(a), (4000, len(a)))
    resampled = (a[indices].mean(axis=1)) - (b[indices].mean(axis=1))
    difference = paired_difference(a, b, 4000)
    expected = np.quantile(resampled, (0.025, 0.975))
    np.testing.assert_allclose([difference["low"], difference["high"]], expected, atol=0.002)


def test_equal_answers_have_no_difference() -> None:
    a, _ = correct(7, 2, 0, 1)
    assert paired_difference(a, a) == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert mcnemar(a, a) == {"a_only": 0, "b_only": 0, "p": 1.0}


@pytest.mark.parametrize(("a_only", "b_only"), [(0, 1), (5, 0), (3, 3), (10, 2), (121, 88), (5000, 4000)])
def test_mcnemar_is_the_exact_binomial_test(a_only: int, b_only: int) -> None:
    tested = mcnemar(*correct(4, a_only, b_only, 3))
    assert (tested["a_only"], tested["b_only"]) == (a_only, b_only)
    assert tested["p"] == pytest.approx(binomtest(a_only, a_only + b_only).pvalue, rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[False]])])
def test_other_examples_are_refused(a: list[bool], b: list[bool]) -> None:
    for compare in (paired_difference, mcnemar):
        with pytest.raises(ValueError, match="same examples"):
            compare(a, b)
