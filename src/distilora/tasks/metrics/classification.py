"""Metrics of a classifier, from probabilities [N, C] and class indices [N]. No torch.

ECE = sum over 15 bins b of n_b / N |accuracy(b) - confidence(b)|, equal-width bins of the top probability
      (Guo et al., ICML 2017)
Brier = mean over examples of sum over classes (p - y)^2, from 0 to 2 (Brier, 1950)
AUROC of two classes is that of the second; of more, the macro mean of one versus the rest
intervals: percentile bootstrap over examples (tasks/metrics/bootstrap.py)
risk and coverage where only the most confident examples are answered: tasks/metrics/selective.py

Beyond SHOWN classes the arrays for the report stay bounded: of the confusion matrix only the non-empty cells are kept, and
of the ROC curves only those of the CURVES classes with the lowest AUROC.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.errors import MissingExtra

ECE_BINS = 15
SHOWN = 20  # most classes that a confusion matrix has room for on a page
CURVES = 10
CURVE_POINTS = 200
Probabilities = NDArray[np.float64]
Indices = NDArray[np.int64]


def classification_metrics(
    probabilities: Probabilities, targets: Indices, resamples: int = 0, predicted: Indices | None = None
) -> dict[str, Any]:
    """Compute all metrics, accuracy first, and under `figures` the arrays that the report draws.

    `predicted` are the classes that are answered, [N]; None: the likeliest. The confidence is the answered class's probability.
    A metric that is undefined for the examples (AUROC of one class) has the value None.
    """
    from distilora.tasks.metrics.bootstrap import intervals
    from distilora.tasks.metrics.selective import risk_coverage

    count, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    confidence = probabilities[np.arange(count), predicted]
    support, predictions = (np.bincount(indices, minlength=classes) for indices in (targets, predicted))
    hits = np.bincount(targets[predicted == targets], minlength=classes)
    onehot = np.eye(classes)[targets]
    areas = class_auroc(probabilities, targets)
    bounds = intervals(probabilities, targets, resamples, predicted) if resamples else {}
    values: dict[str, float | None] = {
        "accuracy": float(np.mean(predicted == targets)),
        "macro_f1": float(macro_f1(hits, support, predictions)),
        "mcc": float(mcc(hits, support, predictions)),
        "auroc": _auroc(areas),
        "log_loss": float(-np.mean(np.log(np.maximum(probabilities[np.arange(count), targets], 1e-300)))),
        "brier": float(np.mean(((probabilities - onehot) ** 2).sum(axis=1))),
        "ece": ece(probabilities, targets, predicted),
    }
    measured: dict[str, Any] = {
        name: {"value": value, "low": bounds.get(name, (None, None))[0], "high": bounds.get(name, (None, None))[1]}
        for name, value in values.items()
    }
    measured["figures"] = {
        **_confusion(predicted, targets, classes),
        "per_class": _per_class(hits, support, predictions),
        "reliability": _reliability(confidence, predicted == targets),
        "confidence": np.histogram(confidence, bins=20, range=(0, 1))[0].tolist(),
        "roc": _roc(probabilities, targets, areas),
        "risk_coverage": risk_coverage(confidence, predicted == targets, resamples),
    }
    return measured


def _confusion(predicted: Indices, targets: Indices, classes: int) -> dict[str, Any]:
    """Count `confusion`, the matrix [true][predicted]; beyond SHOWN classes `confusion_cells`, its non-empty cells."""
    if classes <= SHOWN:
        cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
        return {"confusion": cells.reshape(classes, classes).tolist()}
    cell, counts = np.unique(targets * classes + predicted, return_counts=True)
    return {
        "confusion_cells": {
            "true": (cell // classes).tolist(),
            "predicted": (cell % classes).tolist(),
            "count": counts.tolist(),
        }
    }


def _per_class(hits: Indices, support: Indices, predictions: Indices) -> list[dict[str, Any]]:
    """Compute precision, recall and F1 of each class; None if a class was never predicted, or never the target."""

    def ratio(part: int, total: int) -> float | None:
        return part / total if total else None

    return [
        {
            "precision": ratio(hit, predicted),
            "recall": ratio(hit, true),
            "f1": ratio(2 * hit, true + predicted),
            "support": true,
            "predicted": predicted,
        }
        for hit, true, predicted in zip(hits.tolist(), support.tolist(), predictions.tolist(), strict=True)
    ]


def ece(probabilities: Probabilities, targets: Indices, predicted: Indices | None = None) -> float:
    """Compute the expected calibration error with 15 bins; `predicted` None: of the likeliest classes."""
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    rows = _reliability(probabilities[np.arange(len(targets)), predicted], predicted == targets)
    total = sum(row["count"] for row in rows)
    return float(sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / max(total, 1))


def _reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[dict[str, float]]:
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


def class_auroc(probabilities: Probabilities, targets: Indices) -> NDArray[np.float64]:
    """Compute each class's AUROC versus the rest, [C]; NaN for a class that is the target of no example, or of all.

    AUROC = (sum of the positives' ranks - P (P + 1) / 2) / (P Q), of P positives and Q negatives, ties at their mean rank
    (Mann and Whitney 1947).
    """
    count, classes = probabilities.shape
    support = np.bincount(targets, minlength=classes)
    areas = np.full(classes, np.nan)
    for c in np.flatnonzero((support > 0) & (support < count)):
        _, inverse, ties = np.unique(probabilities[:, c], return_inverse=True, return_counts=True)
        mean_rank = np.cumsum(ties) - (ties - 1) / 2
        total = mean_rank[inverse[targets == c]].sum()
        areas[c] = (total - support[c] * (support[c] + 1) / 2) / (support[c] * (count - support[c]))
    return areas


def _auroc(areas: NDArray[np.float64]) -> float | None:
    if np.isnan(areas).any():
        return None
    return float(areas[1] if len(areas) == 2 else areas.mean())


def _roc(probabilities: Probabilities, targets: Indices, areas: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Compute the ROC curve of the second of two classes, or one per class of more; at most 200 points each."""
    classes = len(areas)
    curves = []
    for c in [1] if classes == 2 else range(classes) if classes <= SHOWN else np.sort(np.argsort(areas)[:CURVES]):
        if np.isnan(areas[c]):
            continue
        try:
            import sklearn.metrics as sk
        except ImportError:
            raise MissingExtra("scikit-learn", "train") from None
        false, true, _ = sk.roc_curve(targets == c, probabilities[:, c])
        thin = np.unique(np.linspace(0, len(false) - 1, CURVE_POINTS).astype(int))
        curves.append({"class": int(c), "false_positive": false[thin].tolist(), "true_positive": true[thin].tolist()})
    return curves


def macro_f1(hits: NDArray[Any], support: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
    """Compute macro F1 over classes that occur as target or prediction, [...]; the counts are [..., C]."""
    sums = support + predictions
    scores = np.where(sums > 0, 2 * hits / np.maximum(sums, 1), np.nan)
    return np.asarray(np.nanmean(scores, axis=-1))


def mcc(hits: NDArray[Any], support: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the multi-class Matthews correlation (Gorodkin 2004), [...]; 0 where undefined. The counts are [..., C]."""
    true, predicted = np.asarray(support, np.float64), np.asarray(predictions, np.float64)
    total = true.sum(axis=-1)
    numerator = np.asarray(hits).sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    denominator = np.sqrt((total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1)))
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))
