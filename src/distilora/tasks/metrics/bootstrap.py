"""95% intervals of a classifier's metrics: percentile bootstrap over examples (Efron 1979). No torch.

A resample is a count of each example, [N]; R of them are the columns of W [N, R], and every metric comes from sums of its
rows: over the examples of a class, over those answered so, over the ranks of a class's probability. The work is
O(N C R), and no confusion matrix [C, C] is made.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import MissingExtra
from distilora.tasks.metrics.classification import Indices, Probabilities, macro_f1, mcc

HELD = 4_000_000  # counts of examples in resamples held at a time: 32 MB


def intervals(probabilities: Probabilities, targets: Indices, resamples: int) -> dict[str, tuple[float, float]]:
    """Compute the 2.5% and 97.5% quantiles of every metric over `resamples` resamples.

    A metric that any resample leaves undefined (AUROC, where it holds none of a class) has no interval.
    Raises MissingExtra without SciPy.
    """
    count, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    rows = np.arange(count)
    losses = np.stack(
        [
            -np.log(np.maximum(probabilities[rows, targets], 1e-300)),
            ((probabilities - np.eye(classes)[targets]) ** 2).sum(axis=1),
        ]
    )
    by_target, by_answer = _sums(targets, rows, classes, count), _sums(predicted, rows, classes, count)
    correct = np.flatnonzero(predicted == targets)
    by_hit = _sums(targets[correct], correct, classes, count)
    curves: dict[int, ClassRanks] = {}
    drawn: dict[str, list[NDArray[np.float64]]] = {}
    defined = True  # AUROC, in the resamples so far
    for weights in _resamples(count, resamples):
        hits, support, answered = ((sums @ weights).T for sums in (by_hit, by_target, by_answer))
        log_loss, brier = losses @ weights / count
        values = {
            "accuracy": hits.sum(axis=1) / count,
            "macro_f1": macro_f1(hits, support, answered),
            "mcc": mcc(hits, support, answered),
            "log_loss": log_loss,
            "brier": brier,
        }
        defined = defined and bool(np.all((support > 0) & (support < count)))
        if defined:
            asked = [1] if classes == 2 else range(classes)
            curves = curves or {c: ClassRanks(probabilities[:, c], targets == c) for c in asked}
            values["auroc"] = np.mean([ranks.auroc(weights) for ranks in curves.values()], axis=0)
        for name, value in values.items():
            drawn.setdefault(name, []).append(value)
    if not defined:
        drawn.pop("auroc", None)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in ((name, np.concatenate(parts)) for name, parts in drawn.items())
    }


def _resamples(count: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """Yield the counts of the examples in the resamples, [N, some]; `resamples` columns in all."""
    rng = np.random.default_rng(0)
    width = max(HELD // count, 1)
    for start in range(0, resamples, width):
        columns = [
            np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(min(width, resamples - start))
        ]
        yield np.stack(columns, axis=1).astype(np.float64)


class ClassRanks:
    """How one class's probability ranks the examples; with it the AUROC of any resample is a few sums.

    The examples that are not of the class fall into 2 K + 1 bins around the K different probabilities of those that are:
    below the first, tied with it, between it and the second, ...
    """

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        levels = np.unique(scores[positive])
        place = np.searchsorted(levels, scores)
        tied = levels[np.minimum(place, len(levels) - 1)] == scores
        yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
        self._positives = _sums(place[yes], yes, len(levels), len(scores))
        self._others = _sums(2 * place[no] + tied[no], no, 2 * len(levels) + 1, len(scores))

    def auroc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(probability of one of the class > of another) + P(equal) / 2 for resamples [N, R]: [R]; NaN if undefined."""
        positives, others = self._positives @ weights, self._others @ weights
        below = np.cumsum(others, axis=0)[:-1:2]  # of each level
        wins = (positives * (below + others[1::2] / 2)).sum(axis=0)
        pairs = positives.sum(axis=0) * others.sum(axis=0)
        return np.asarray(np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0))


def _sums(group: Indices, member: Indices, groups: int, count: int) -> Any:
    """The sparse matrix [groups, N] that adds up rows `member` of what it is multiplied with by their `group`."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise MissingExtra("scipy", "train") from None
    return csr_array((np.ones(len(member)), (group, member)), shape=(groups, count))
