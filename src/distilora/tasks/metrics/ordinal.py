"""Metrics of ordered classes, from class numbers predicted and true, [N] each. No torch.

    mae               mean of |predicted - true|, in classes
    quadratic kappa   1 - mean (p - t)^2 / (mean of (p - t)^2 if both were drawn independently)       (Cohen 1968)

The denominator is var(p) + var(t) + (mean p - mean t)^2. Intervals: percentile bootstrap (tasks/metrics/bootstrap.py).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.bootstrap import draws, with_intervals

Indices = NDArray[np.int64]


def distance_metrics(predicted: Indices, targets: Indices, resamples: int = 0) -> dict[str, Any]:
    """Compute both metrics; kappa is None if all predictions and targets are one class."""
    values = _distances(predicted, targets, np.ones((len(targets), 1)))
    of_resamples = resampled_distances(predicted, targets, resamples) if resamples else {}
    return with_intervals(values, of_resamples)


def resampled_distances(predicted: Indices, targets: Indices, resamples: int) -> dict[str, NDArray[np.float64]]:
    """Compute both metrics for each resample, [R]; paired as in `bootstrap.resampled`."""
    chunks = [_distances(predicted, targets, weights) for weights in draws(len(targets), resamples)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _distances(predicted: Indices, targets: Indices, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Compute the metrics of resamples given by counts of the examples, [N, R]."""
    p, t, count = predicted.astype(np.float64), targets.astype(np.float64), weights.sum(axis=0)
    mean_p, mean_t, square_p, square_t, squared, absolute = (
        values @ weights / count for values in (p, t, p * p, t * t, (p - t) ** 2, np.abs(p - t))
    )
    chance = square_p - mean_p**2 + square_t - mean_t**2 + (mean_p - mean_t) ** 2
    kappa = 1 - np.divide(squared, chance, out=np.full_like(squared, np.nan), where=chance > 1e-12)
    return {"mae": np.asarray(absolute), "quadratic_kappa": np.asarray(kappa)}
