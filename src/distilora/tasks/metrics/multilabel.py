"""Metrics of several labels at once: probabilities, answers and truth of N texts and L labels, [N, L] each. No torch.

    micro F1       F1 of all N L decisions together
    macro F1       mean of the labels' F1, those that are neither true nor answered left out
    mean average precision    mean over labels of the mean, over its true texts, of the precision among the texts that score as
                   high or higher (labels that no text has are left out)
    exact match    share of texts with all labels right
    hamming loss   share of the N L decisions that are wrong
    log loss       mean over the N L decisions

Intervals: percentile bootstrap over texts (tasks/metrics/bootstrap.py).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.bootstrap import draws, with_intervals

Probabilities = NDArray[np.float64]
Marks = NDArray[np.bool_]
Values = NDArray[np.float64]


def multilabel_metrics(
    probabilities: Probabilities, answered: Marks, true: Marks, resamples: int = 0
) -> dict[str, Any]:
    """Compute all metrics, micro F1 first; one that is undefined is None."""
    values = _values(probabilities, answered, true, np.ones((len(true), 1)))
    of_resamples = resampled_decisions(probabilities, answered, true, resamples) if resamples else {}
    return with_intervals(values, of_resamples)


def resampled_decisions(
    probabilities: Probabilities, answered: Marks, true: Marks, resamples: int
) -> dict[str, Values]:
    """Compute every metric for each resample, [R]; paired as in `bootstrap.resampled`."""
    chunks = [_values(probabilities, answered, true, weights) for weights in draws(len(true), resamples)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def label_rows(probabilities: Probabilities, answered: Marks, true: Marks) -> list[dict[str, Any]]:
    """Compute precision, recall, F1 and average precision of each label; None where undefined."""
    hits, support, given = ((marks).sum(axis=0) for marks in (answered & true, true, answered))
    precision = average_precision(probabilities, true, np.ones((len(true), 1)))[:, 0]

    def ratio(part: float, total: float) -> float | None:
        return float(part / total) if total else None

    return [
        {
            "precision": ratio(hit, answers),
            "recall": ratio(hit, texts),
            "f1": ratio(2 * hit, texts + answers),
            "average_precision": None if np.isnan(area) else float(area),
            "support": int(texts),
            "predicted": int(answers),
        }
        for hit, texts, answers, area in zip(hits, support, given, precision, strict=True)
    ]


def average_precision(probabilities: Probabilities, true: Marks, weights: Values) -> Values:
    """Compute each label's average precision in resamples given by counts of the texts, [N, R]: [L, R]; NaN where undefined."""
    areas = np.full((true.shape[1], weights.shape[1]), np.nan)
    for label in range(true.shape[1]):
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores = probabilities[order, label]
        last = np.searchsorted(-scores, -scores, side="right") - 1  # last text of those that score the same
        counts = weights[order]
        positives = counts * true[order, label][:, None]
        found, seen = np.cumsum(positives, axis=0)[last], np.cumsum(counts, axis=0)[last]
        total = positives.sum(axis=0)
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        areas[label] = np.divide(
            (positives * precision).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0
        )
    return areas


def best_thresholds(probabilities: Probabilities, true: Marks) -> list[float]:
    """Choose for each label the threshold of the best F1, [L]; of equal ones the nearest to 0.5. 0.5 for a label without texts.

    A threshold lies midway between two neighbouring probabilities, or below all of them.
    """
    thresholds = []
    for label in range(true.shape[1]):
        if not true[:, label].any():
            thresholds.append(0.5)
            continue
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores = probabilities[order, label]
        ends = np.append(np.flatnonzero(scores[1:] < scores[:-1]), len(scores) - 1)  # texts answered: 0 .. end
        hits = np.cumsum(true[order, label])[ends]
        f1 = 2 * hits / (ends + 1 + true[:, label].sum())
        candidates = (scores[ends] + np.append(scores[ends[:-1] + 1], 0.0)) / 2
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        thresholds.append(float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]]))
    return thresholds


def _values(probabilities: Probabilities, answered: Marks, true: Marks, weights: Values) -> dict[str, Values]:
    """Compute the metrics of resamples given by counts of the texts, [N, R]."""
    count = weights.sum(axis=0)
    hits, support, given = ((marks.T.astype(np.float64)) @ weights for marks in (answered & true, true, answered))
    sums = support + given
    of_labels = np.divide(2 * hits, sums, out=np.full_like(sums, np.nan), where=sums > 0)
    areas = average_precision(probabilities, true, weights)
    right = np.clip(np.where(true, probabilities, 1 - probabilities), 1e-300, None)
    return {
        "micro_f1": np.divide(
            2 * hits.sum(axis=0), sums.sum(axis=0), out=np.full_like(count, np.nan), where=sums.sum(axis=0) > 0
        ),
        "macro_f1": _mean_of_defined(of_labels),
        "mean_average_precision": _mean_of_defined(areas),
        "exact_match": (answered == true).all(axis=1) @ weights / count,
        "hamming_loss": (answered != true).mean(axis=1) @ weights / count,
        "log_loss": -np.log(right).mean(axis=1) @ weights / count,
    }


def _mean_of_defined(values: Values) -> Values:
    """Compute the mean over labels, [R], of those that are defined; NaN without any."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    return np.asarray(np.divide(total, number, out=np.full(values.shape[1], np.nan), where=number > 0))
