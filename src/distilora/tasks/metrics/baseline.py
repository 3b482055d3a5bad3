"""The majority baseline: the metrics of always answering the most frequent training class, and whether a model beats them.

baseline accuracy = share of that class among the examples; its macro F1 is that of the same constant answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distilora.tasks.metrics.classification import macro_f1

THESE = "these examples"  # where the counts of training are unknown


def majority_baseline(classes: Sequence[Mapping[str, Any]], trained: Mapping[str, int] | None) -> dict[str, Any]:
    """Compute accuracy and macro F1 of always answering the most frequent class.

    Args:
        classes: the measured classes, each with `label` and `support`.
        trained: number of training examples of each label. Without it the most frequent class of the measured examples
            is taken, the strongest constant answer there is, and `of` says so.
    """
    support = np.asarray([row["support"] for row in classes])
    labels = [row["label"] for row in classes]
    chosen = labels.index(max(trained, key=lambda label: trained[label])) if trained else int(support.argmax())
    constant = np.zeros_like(support)
    constant[chosen] = support.sum()
    hits = np.minimum(support, constant)
    return {
        "label": labels[chosen],
        "of": "training" if trained else THESE,
        "accuracy": float(hits.sum() / support.sum()),
        "macro_f1": float(macro_f1(hits, support, constant)),
    }


def verdict(
    metrics: Mapping[str, Mapping[str, Any]], classes: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]
) -> str:
    """Say in one sentence that the model is no better than the baseline; return an empty string if it is better.

    The rule uses 95% intervals. If the interval of the Matthews correlation includes 0, the answers are no better than
    the constant one in any sense. Otherwise, if the interval of the accuracy does not lie above the baseline's accuracy,
    the model tells the classes apart and yet is right no more often; the sentence then says both. Examples of a single
    class allow no judgement and get none.
    """
    if sum(row["support"] > 0 for row in classes) < 2 or not {"mcc", "accuracy"} <= set(metrics):
        return ""
    accuracy, correlation = metrics["accuracy"], metrics["mcc"]
    always = f"always answering {baseline['label']!r}"
    count = sum(row["support"] for row in classes)
    if _low(correlation) <= 0:
        predicted = [row["label"] for row in classes if row["predicted"]]
        constant = f"; it answers {predicted[0]!r} to everything" if len(predicted) == 1 else ""
        return (
            f"As far as these {count:,} examples tell, this model is no better than {always}: accuracy "
            f"{accuracy['value']:.2%} against {baseline['accuracy']:.2%}, "
            f"Matthews correlation {correlation['value']:.3f}{_interval(correlation)}{constant}."
        )
    if _low(accuracy) <= baseline["accuracy"]:
        f1 = metrics["macro_f1"]["value"]
        return (
            f"As far as these {count:,} examples tell, this model is right no more often than {always}: accuracy "
            f"{accuracy['value']:.2%}{_interval(accuracy, '.2%')} against {baseline['accuracy']:.2%}; "
            f"it does tell the classes apart (macro F1 {f1:.2%} against {baseline['macro_f1']:.2%})."
        )
    return ""


def _low(measured: Mapping[str, Any]) -> float:
    return float(measured["value"] if measured["low"] is None else measured["low"])


def _interval(measured: Mapping[str, Any], kind: str = ".3f") -> str:
    return "" if measured["low"] is None else f" ({measured['low']:{kind}} to {measured['high']:{kind}})"
