"""Metrics of predicted numbers against true ones, [N] each. No torch.

    spearman   Pearson's correlation of the ranks, ties at their mean rank (Spearman 1904)
    r2         1 - mean (p - t)^2 / var(t)

Intervals: percentile bootstrap (tasks/metrics/bootstrap.py). Ranks are those among all N examples, also in a resample: with
repeated examples the ranks within a resample differ from them by a rounding of order 1 / N.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.bootstrap import draws, with_intervals

Values = NDArray[np.float64]


def regression_metrics(predicted: Values, targets: Values, resamples: int = 0) -> dict[str, Any]:
    """Compute all metrics, spearman first; a correlation is None where either side is constant, r2 where the targets are."""
    values = _errors(predicted, targets, np.ones((len(targets), 1)))
    of_resamples = resampled_errors(predicted, targets, resamples) if resamples else {}
    return with_intervals(values, of_resamples)


def resampled_errors(predicted: Values, targets: Values, resamples: int) -> dict[str, Values]:
    """Compute every metric for each resample, [R]; paired as in `bootstrap.resampled`."""
    chunks = [_errors(predicted, targets, weights) for weights in draws(len(targets), resamples)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _errors(predicted: Values, targets: Values, weights: Values) -> dict[str, Values]:
    """Compute the metrics of resamples given by counts of the examples, [N, R]."""
    squared = _mean((predicted - targets) ** 2, weights)
    spread = _variance(targets, weights)
    return {
        "spearman": _correlation(ranks(predicted), ranks(targets), weights),
        "pearson": _correlation(predicted, targets, weights),
        "rmse": np.sqrt(squared),
        "mae": _mean(np.abs(predicted - targets), weights),
        "r2": 1 - np.divide(squared, spread, out=np.full_like(squared, np.nan), where=spread > 0),
    }


def ranks(values: Values) -> Values:
    """Rank values from 1, ties at their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _mean(values: Values, weights: Values) -> Values:
    return np.asarray(values @ weights / weights.sum(axis=0))


def _variance(values: Values, weights: Values) -> Values:
    centred = values - values.mean()  # so that the difference of squares loses no digits
    variance = _mean(centred**2, weights) - _mean(centred, weights) ** 2
    return np.where(variance > 1e-12 * max(float(np.square(centred).max(initial=0.0)), 1e-300), variance, 0.0)


def _correlation(a: Values, b: Values, weights: Values) -> Values:
    a, b = a - a.mean(), b - b.mean()
    product = _mean(a * b, weights) - _mean(a, weights) * _mean(b, weights)
    scale = np.sqrt(_variance(a, weights) * _variance(b, weights))
    return np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0)
