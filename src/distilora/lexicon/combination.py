"""Combines the logits of the encoder with those of the n-gram expert, by two weights fitted on validation.

    combined = a * encoder + b * expert        a, b >= 0, chosen to minimise the mean of -log softmax(combined)[target]

Neither was fitted on the validation texts, so both are what they would be on new texts; with two numbers there is little to
overfit (a logarithmic opinion pool; stacking after Wolpert 1992). The weights calibrate, too: 1 / a takes the place of the
temperature. The loss is convex in (a, b); Newton's method with halved steps finds its minimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 20.0  # the temperature's own limit, from the other side


@dataclass(frozen=True)
class Weights:
    """Weights of the two views; `expert_alone` is the weight that calibrates the expert without the encoder."""

    encoder: float
    expert: float
    expert_alone: float


def fit_weights(encoder: NDArray[np.float32], expert: NDArray[np.float32], targets: Sequence[int]) -> Weights:
    """Fit the weights on validation logits [N, C] each and class numbers [N]."""
    indices = np.asarray(targets, np.int64)
    a, b = _minimise(np.stack([encoder, expert]).astype(np.float64), indices)
    return Weights(a, b, fit_scale(expert, targets))


def fit_scale(logits: NDArray[np.float32], targets: Sequence[int]) -> float:
    """Fit the weight of one view, which calibrates it: logits [N, C] and class numbers [N]."""
    (scale,) = _minimise(logits[None].astype(np.float64), np.asarray(targets, np.int64))
    return scale


def _minimise(views: NDArray[np.float64], targets: NDArray[np.int64]) -> list[float]:
    """Minimise the log loss over weights in [0, MOST] of the views [K, N, C]: projected Newton, ridge 1e-6."""
    weights = np.full(len(views), 1.0 / len(views))
    value = _log_loss(weights, views, targets)
    for _ in range(100):
        gradient, hessian = _derivatives(weights, views, targets)
        # a weight at 0 that the gradient holds there stays out of the step
        free = ~((weights <= 0) & (gradient > 0)) & ~((weights >= MOST) & (gradient < 0))
        if not free.any() or np.abs(gradient[free]).max() < 1e-9:
            break
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)] + 1e-6 * np.eye(int(free.sum())), gradient[free])
        size, better = 1.0, False
        while size > 1e-6 and not better:
            candidate = np.clip(weights - size * step, 0.0, MOST)
            loss = _log_loss(candidate, views, targets)
            better = loss < value
            size /= 2
        if not better:
            break
        weights, value = candidate, loss
    return [float(weight) for weight in weights]


def _log_loss(weights: NDArray[Any], views: NDArray[Any], targets: NDArray[np.int64]) -> float:
    logits = np.tensordot(weights, views, 1)
    top = logits.max(axis=1)
    sums = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return float(np.mean(sums - logits[np.arange(len(targets)), targets]))


def _derivatives(
    weights: NDArray[Any], views: NDArray[Any], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the gradient, [K], and the Hessian, [K, K], of the mean log loss in the weights."""
    logits = np.tensordot(weights, views, 1)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = (probabilities * views).sum(axis=2)  # [K, N]
    gradient = (expected - views[:, np.arange(len(targets)), targets]).mean(axis=1)
    products = np.einsum("nc,knc,lnc->kl", probabilities, views, views) / len(targets)
    return gradient, products - expected @ expected.T / len(targets)
