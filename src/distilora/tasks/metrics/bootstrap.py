"""95% intervals of a classifier's metrics: percentile bootstrap over examples (Efron 1979). No torch.

A resample is a count of each example, [N]; R of them are the columns of W [N, R], and every metric is computed from sums of
its rows: over the examples of a class, over those predicted as it, over the ranks of a class's probability. The work is
O(N C R), and no confusion matrix [C, C] is built.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import MissingExtra
from distilora.tasks.metrics.classification import Indices, Probabilities, macro_f1, mcc

CHUNK = 4_000_000  # counts of examples in memory at a time: 32 MB


def intervals(
    probabilities: Probabilities, targets: Indices, resamples: int, predicted: Indices | None = None
) -> dict[str, tuple[float, float]]:
    """Compute the 2.5% and 97.5% quantiles of every metric over `resamples` resamples.

    A metric that is undefined for any resample (AUROC, where a class is missing) has no interval.
    Raises MissingExtra without SciPy.
    """
    return {name: interval(values) for name, values in resampled(probabilities, targets, resamples, predicted).items()}


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Compute the 2.5% and 97.5% quantiles of a metric's values in the resamples, [R]."""
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def with_intervals(
    values: dict[str, NDArray[np.float64]], of_resamples: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Return each metric, [1], as value, low and high; None where it is undefined, and no interval where any resample's is."""
    measured: dict[str, Any] = {}
    for name, (value,) in values.items():
        bounds = of_resamples.get(name)
        low, high = (None, None) if bounds is None or np.isnan(bounds).any() else interval(bounds)
        measured[name] = {"value": None if np.isnan(value) else float(value), "low": low, "high": high}
    return measured


def resampled(
    probabilities: Probabilities, targets: Indices, resamples: int, predicted: Indices | None = None
) -> dict[str, NDArray[np.float64]]:
    """Compute every metric for each resample, [R]; AUROC only if it is defined for all of them.

    `predicted` are the classes that are answered, [N]; None: the likeliest.

    The resamples depend on N and R alone, so the values of two models for the same examples are paired.
    Raises MissingExtra without SciPy.
    """
    count, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    rows = np.arange(count)
    losses = np.stack(
        [
            -np.log(np.maximum(probabilities[rows, targets], 1e-300)),
            ((probabilities - np.eye(classes)[targets]) ** 2).sum(axis=1),
        ]
    )
    by_target, by_prediction = _sums(targets, rows, classes, count), _sums(predicted, rows, classes, count)
    correct = np.flatnonzero(predicted == targets)
    by_hit = _sums(targets[correct], correct, classes, count)
    ranks: dict[int, ClassRanks] = {}
    chunks: dict[str, list[NDArray[np.float64]]] = {}
    defined = True  # AUROC, in the resamples so far
    for weights in draws(count, resamples):
        hits, support, predictions = ((sums @ weights).T for sums in (by_hit, by_target, by_prediction))
        log_loss, brier = losses @ weights / count
        values = {
            "accuracy": hits.sum(axis=1) / count,
            "macro_f1": macro_f1(hits, support, predictions),
            "mcc": mcc(hits, support, predictions),
            "log_loss": log_loss,
            "brier": brier,
        }
        defined = defined and bool(np.all((support > 0) & (support < count)))
        if defined:
            positives = [1] if classes == 2 else range(classes)
            ranks = ranks or {c: ClassRanks(probabilities[:, c], targets == c) for c in positives}
            values["auroc"] = np.mean([of_class.auroc(weights) for of_class in ranks.values()], axis=0)
        for name, value in values.items():
            chunks.setdefault(name, []).append(value)
    if not defined:
        chunks.pop("auroc", None)
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def resampled_mean(values: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Compute the mean of the examples' values, [N], for each resample, [R]; paired as in `resampled`."""
    return np.concatenate([values @ weights / len(values) for weights in draws(len(values), resamples)])


def draws(count: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """Yield the counts of the examples, [N, <= width], a chunk of resamples at a time; `resamples` columns in all."""
    rng = np.random.default_rng(0)
    width = max(CHUNK // count, 1)
    for start in range(0, resamples, width):
        columns = [
            np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(min(width, resamples - start))
        ]
        yield np.stack(columns, axis=1).astype(np.float64)


class ClassRanks:
    """Ranks of the examples by one class's probability, from which the AUROC of any resample is a few sums.

    The negatives fall into 2 K + 1 bins around the K distinct probabilities of the positives: below the first, tied with
    it, between it and the second, ...
    """

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        levels = np.unique(scores[positive])
        level = np.searchsorted(levels, scores)
        tied = levels[np.minimum(level, len(levels) - 1)] == scores
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        self._positives = _sums(level[positives], positives, len(levels), len(scores))
        self._negatives = _sums(2 * level[negatives] + tied[negatives], negatives, 2 * len(levels) + 1, len(scores))

    def auroc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the AUROC, P(positive > negative) + P(tie) / 2, of resamples [N, R]: [R]; NaN if undefined."""
        positives, negatives = self._positives @ weights, self._negatives @ weights
        below = np.cumsum(negatives, axis=0)[:-1:2]  # negatives below each level
        wins = (positives * (below + negatives[1::2] / 2)).sum(axis=0)
        pairs = positives.sum(axis=0) * negatives.sum(axis=0)
        return np.asarray(np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0))


def _sums(group: Indices, member: Indices, groups: int, count: int) -> Any:
    """Build the sparse matrix [groups, N] whose product with a matrix sums the matrix's rows `member` by `group`."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise MissingExtra("scipy", "train") from None
    return csr_array((np.ones(len(member)), (group, member)), shape=(groups, count))
