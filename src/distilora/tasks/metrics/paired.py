"""Compares two models on the same examples: difference of their accuracies with its interval, and McNemar's exact test.

Both read only which examples each model answers correctly; the examples that both do, or neither does, say nothing about
which model is better.
"""

import math
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Difference(TypedDict):
    """Difference of a metric with the ends of its 95% interval; the ends are None without resamples."""

    value: float
    low: float | None
    high: float | None


class McNemar(TypedDict):
    """Numbers of examples that only one model answers correctly, and the two-sided p-value."""

    a_only: int
    b_only: int
    p: float


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, resamples: int = 1000) -> Difference:
    """Compute accuracy of a minus accuracy of b, with its 95% interval by a paired bootstrap over the examples.

        value = (n_a - n_b) / N

    of the n_a examples that only a answers correctly and the n_b that only b does. A resample of N examples is fully
    described by its numbers of either kind, which are multinomial with the shares n_a / N and n_b / N, so `resamples`
    draws from that distribution are the percentile bootstrap (Efron 1979) of whole examples, at a cost that does not
    depend on N. The seed is fixed.

    Args:
        correct_a, correct_b: whether each example is answered correctly, [N], in the same order.
        resamples: number of resamples behind the interval; 0: no interval.

    Raises ValueError for no example, or lengths that differ.
    """
    a_only, b_only, count = _discordant(correct_a, correct_b)
    value = (a_only - b_only) / count
    if not resamples:
        return {"value": value, "low": None, "high": None}
    shares = np.asarray([a_only, b_only, count - a_only - b_only]) / count
    draws = np.random.default_rng(0).multinomial(count, shares, resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / count, (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Test whether a and b are equally accurate, by McNemar's exact test (McNemar 1947).

        p = min(1, 2 P(X <= min(n_a, n_b))),  X ~ Binomial(n_a + n_b, 1/2)

    If the models are equally accurate, each example that only one of them answers correctly is as likely to be a's as b's.

    Raises ValueError for no example, or lengths that differ.
    """
    a_only, b_only, _ = _discordant(correct_a, correct_b)
    return {"a_only": a_only, "b_only": b_only, "p": _two_sided(min(a_only, b_only), a_only + b_only)}


def _discordant(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[int, int, int]:
    """Count the examples that only a answers correctly, those that only b does, and all."""
    a: NDArray[np.bool_] = np.asarray(correct_a, np.bool_)
    b: NDArray[np.bool_] = np.asarray(correct_b, np.bool_)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"a paired comparison needs the same examples, one or more, for both: {a.shape} and {b.shape}")
    return int((a & ~b).sum()), int((b & ~a).sum()), a.size


def _two_sided(fewer: int, count: int) -> float:
    """Compute min(1, 2 P(X <= fewer)) of X ~ Binomial(count, 1/2); in logarithms, since 2 ** -count underflows."""
    k = np.arange(fewer + 1)
    factorials = np.asarray([math.lgamma(n + 1) for n in range(count + 1)])
    logs = factorials[count] - factorials[k] - factorials[count - k] - count * math.log(2)
    most = logs.max()
    return float(min(1.0, 2 * math.exp(most) * np.exp(logs - most).sum()))
