"""Risk and coverage where only the most confident examples are answered (El-Yaniv and Wiener 2010). No torch.

    coverage(t) = share of the examples that score at least t
    risk(t)     = share of these that is answered wrongly; 1 - risk is their accuracy
    AURC        = mean over the examples of the risk at their own score, the area under the risk-coverage curve
                  (Geifman, Uziel and El-Yaniv, ICLR 2019); 0 is perfect, the error rate what a random order gives

Coverage at an accuracy is the largest coverage of a threshold with that accuracy on these very examples: it is found in
hindsight, where `tasks/abstention.py` chooses a threshold that holds for others.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.bootstrap import draws

ACCURACIES = (0.95, 0.98, 0.99)
POINTS = 200  # of the curve, at most
FLAT = 1e-12  # rounding of counts


def risk_coverage(scores: NDArray[np.float64], correct: NDArray[np.bool_], resamples: int = 0) -> dict[str, Any]:
    """Compute `aurc`, the curve and the coverage `at_accuracy`, as JSON values, from scores and correctness [N].

    Of the coverages, `score` is the threshold, None where no threshold has that accuracy. With `resamples` > 0 there are 95%
    intervals `low` and `high`, by the percentile bootstrap.
    """
    order = np.argsort(-scores, kind="stable")
    descending, wrong = scores[order], ~correct[order]
    ends = np.append(np.flatnonzero(np.diff(descending)), len(scores) - 1)  # last example of each distinct score
    aurc, coverages = _figures(np.ones((len(scores), 1)), wrong, ends)
    answered = ends + 1
    accuracy = 1 - np.cumsum(wrong)[ends] / answered
    thin = np.unique(np.linspace(0, len(ends) - 1, POINTS).astype(int))
    sampled = [_figures(weights[order], wrong, ends) for weights in draws(len(scores), resamples)]
    aurc_bounds = _bounds(np.concatenate([areas for areas, _ in sampled])) if sampled else (None, None)
    at_accuracy = []
    for i, wanted in enumerate(ACCURACIES):
        coverage = float(coverages[i, 0])
        low, high = _bounds(np.concatenate([of[i] for _, of in sampled])) if sampled else (None, None)
        score = float(descending[round(coverage * len(scores)) - 1]) if coverage else None
        at_accuracy.append({"accuracy": wanted, "value": coverage, "low": low, "high": high, "score": score})
    return {
        "aurc": {"value": float(aurc[0]), "low": aurc_bounds[0], "high": aurc_bounds[1]},
        "coverage": (answered[thin] / len(scores)).tolist(),
        "accuracy": accuracy[thin].tolist(),
        "at_accuracy": at_accuracy,
    }


def _figures(
    weights: NDArray[np.float64], wrong: NDArray[np.bool_], ends: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the AURC [R] and the coverage at each of ACCURACIES [A, R] of resamples: counts [N, R], most confident first."""
    answered = np.cumsum(weights, axis=0)[ends]
    mistakes = np.cumsum(weights * wrong[:, None], axis=0)[ends]
    total = answered[-1]
    risk = mistakes / np.maximum(answered, 1)
    area = (risk * np.diff(answered, axis=0, prepend=0)).sum(axis=0) / total
    coverages = [np.where(risk <= 1 - wanted + FLAT, answered, 0).max(axis=0) / total for wanted in ACCURACIES]
    return area, np.stack(coverages)


def _bounds(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))
