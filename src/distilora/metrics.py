"""Metrics of a classifier, from probabilities [N, C] and class indices [N]. No torch.

ECE = sum over 15 bins b of n_b / N |accuracy(b) - confidence(b)|, equal-width bins of the top probability
      (Guo et al., ICML 2017)
Brier = mean over examples of sum over classes (p - y)^2, from 0 to 2 (Brier, 1950)
AUROC of two classes is that of the second; of more, the macro mean of one against the rest
intervals: percentile bootstrap over examples, 2.5% to 97.5% (Efron 1979)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import MissingExtra

ECE_BINS = 15
Probabilities = NDArray[np.float64]
Indices = NDArray[np.int64]


def classification_metrics(probabilities: Probabilities, targets: Indices, resamples: int = 0) -> dict[str, Any]:
    """All metrics, accuracy first, and under `figures` the arrays that the report draws.

    A metric that the examples do not define (AUROC of one class) has the value None.
    """
    try:
        import sklearn.metrics as sk
    except ImportError:
        raise MissingExtra("scikit-learn", "train") from None

    count, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    confusion = sk.confusion_matrix(targets, predicted, labels=range(classes))
    onehot = np.eye(classes)[targets]
    intervals = _intervals(probabilities, targets, resamples)
    values: dict[str, float | None] = {
        "accuracy": float(np.mean(predicted == targets)),
        "macro_f1": float(_macro_f1(confusion[None])[0]),
        "mcc": float(_mcc(confusion[None])[0]),
        "auroc": _auroc(probabilities, targets),
        "log_loss": float(-np.mean(np.log(np.maximum(probabilities[np.arange(count), targets], 1e-300)))),
        "brier": float(np.mean(((probabilities - onehot) ** 2).sum(axis=1))),
        "ece": ece(probabilities, targets),
    }
    measured: dict[str, Any] = {
        name: {
            "value": value,
            "low": intervals.get(name, (None, None))[0],
            "high": intervals.get(name, (None, None))[1],
        }
        for name, value in values.items()
    }
    measured["figures"] = {
        "confusion": confusion.tolist(),
        "reliability": _reliability(probabilities, targets),
        "confidence": np.histogram(probabilities.max(axis=1), bins=20, range=(0, 1))[0].tolist(),
        "roc": _roc(probabilities, targets),
    }
    return measured


def ece(probabilities: Probabilities, targets: Indices) -> float:
    """Expected calibration error with 15 bins."""
    rows = _reliability(probabilities, targets)
    total = sum(row["count"] for row in rows)
    return float(sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / max(total, 1))


def _reliability(probabilities: Probabilities, targets: Indices) -> list[dict[str, float]]:
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)  # (low, high], as in Guo et al.
    rows = []
    for b in range(ECE_BINS):
        inside = bins == b
        if inside.any():
            rows.append(
                {
                    "low": b / ECE_BINS,
                    "high": (b + 1) / ECE_BINS,
                    "count": int(inside.sum()),
                    "confidence": float(confidence[inside].mean()),
                    "accuracy": float(correct[inside].mean()),
                }
            )
    return rows


def _auroc(probabilities: Probabilities, targets: Indices) -> float | None:
    import sklearn.metrics as sk

    classes = probabilities.shape[1]
    if len(np.unique(targets)) < classes:
        return None
    if classes == 2:
        return float(sk.roc_auc_score(targets, probabilities[:, 1]))
    return float(sk.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro"))


def _roc(probabilities: Probabilities, targets: Indices) -> list[dict[str, Any]]:
    """Points of one curve for the second of two classes, or one for each of more; at most about 200 points each."""
    import sklearn.metrics as sk

    classes = probabilities.shape[1]
    curves = []
    for c in [1] if classes == 2 else range(classes):
        if 0 < int(np.sum(targets == c)) < len(targets):
            false, true, _ = sk.roc_curve(targets == c, probabilities[:, c])
            thin = np.unique(np.linspace(0, len(false) - 1, 200).astype(int))
            curves.append({"class": c, "false_positive": false[thin].tolist(), "true_positive": true[thin].tolist()})
    return curves


def _macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Macro F1 of confusion matrices [R, C, C] over classes that occur as target or prediction."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    sums = confusion.sum(axis=1) + confusion.sum(axis=2)
    scores = np.where(sums > 0, 2 * hits / np.maximum(sums, 1), np.nan)
    return np.asarray(np.nanmean(scores, axis=1))


def _mcc(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Multi-class Matthews correlation of confusion matrices [R, C, C] (Gorodkin 2004); 0 where undefined."""
    matrix = confusion.astype(np.float64)
    hits = np.trace(matrix, axis1=1, axis2=2)
    total = matrix.sum(axis=(1, 2))
    true, guessed = matrix.sum(axis=2), matrix.sum(axis=1)
    above = hits * total - (true * guessed).sum(axis=1)
    below = np.sqrt((total**2 - (guessed**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1)))
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def _intervals(probabilities: Probabilities, targets: Indices, resamples: int) -> dict[str, tuple[float, float]]:
    """95% intervals of every metric. One multinomial count of each example stands for a resample."""
    if not resamples:
        return {}
    count, classes = probabilities.shape
    rng = np.random.default_rng(0)
    predicted = probabilities.argmax(axis=1)
    cell = targets * classes + predicted
    losses = {
        "log_loss": -np.log(np.maximum(probabilities[np.arange(count), targets], 1e-300)),
        "brier": ((probabilities - np.eye(classes)[targets]) ** 2).sum(axis=1),
    }
    order = np.argsort(probabilities, axis=0, kind="stable")
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        confusion = np.bincount(cell, weight, classes * classes).reshape(1, classes, classes)
        row = {
            "accuracy": float(np.trace(confusion[0]) / count),
            "macro_f1": float(_macro_f1(confusion)[0]),
            "mcc": float(_mcc(confusion)[0]),
            **{name: float(weight @ loss / count) for name, loss in losses.items()},
        }
        areas = [
            weighted_auroc(probabilities[:, c], targets == c, weight, order[:, c])
            for c in ([1] if classes == 2 else range(classes))
        ]
        if None not in areas:
            row["auroc"] = float(np.mean([area for area in areas if area is not None]))
        for name, value in row.items():
            drawn.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in drawn.items()
        if len(values) == resamples
    }


def weighted_auroc(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], weight: NDArray[np.float64], order: Indices
) -> float | None:
    """P(score of a positive > of a negative) + P(equal) / 2, with weights; `order` sorts the scores. None: undefined."""
    scores, plus = scores[order], (weight * positive)[order]
    minus = weight[order] - plus
    if plus.sum() == 0 or minus.sum() == 0:
        return None
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores) > 0]))
    plus, minus = np.add.reduceat(plus, starts), np.add.reduceat(minus, starts)
    below = np.cumsum(minus) - minus
    return float((plus * (below + minus / 2)).sum() / (plus.sum() * minus.sum()))
