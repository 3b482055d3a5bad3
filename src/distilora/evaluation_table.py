"""An evaluation as the terminal shows it: the headline metrics, each class beside the majority baseline."""

from collections.abc import Mapping
from typing import Any

from distilora.metric_names import METRICS, metric_text, share_text

HEADLINES = ("accuracy", "macro_f1", "auroc", "ece")
SHOWN = 12  # classes; of more, the weakest
WIDTH = 32  # characters of a class's name


def metric_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value with its interval) of the metrics to read first."""
    metrics = evaluation["metrics"]
    names = [name for name in HEADLINES if name in metrics] or list(metrics)
    return [(METRICS.get(name, (name, ""))[0], metric_text(name, metrics[name])) for name in names]


def class_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The lines of a table of precision, recall, F1 and examples of each class, and the baseline; none without classes.

    Of more than SHOWN classes those with the lowest F1 are shown, and how many are not.
    """
    classes = evaluation.get("classes", [])
    if not classes:
        return []
    shown = classes
    if len(classes) > SHOWN:
        measured = sorted((row for row in classes if row["f1"] is not None), key=lambda row: float(row["f1"]))
        shown = measured[:SHOWN]
    names = [
        row["label"] if len(row["label"]) <= WIDTH else row["label"][: WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
        for row in shown
    ]
    width = max(len("class"), *map(len, names))
    lines = ["", f"  {'class':<{width}}  precision  recall      F1   examples"]
    for name, row in zip(names, shown, strict=True):
        shares = "  ".join(
            f"{share_text(row[key]):>{size}}" for key, size in (("precision", 9), ("recall", 6), ("f1", 6))
        )
        lines.append(f"  {name:<{width}}  {shares}  {row['support']:>9,}")
    if len(shown) < len(classes):
        lines.append(f"  ({len(shown)} of {len(classes)} classes, those with the lowest F1; the report has all)")
    baseline = evaluation["baseline"]
    lines.append(
        f"  always {baseline['label']!r}, the most frequent of {baseline['of']}: accuracy {baseline['accuracy']:.2%}, "
        f"macro F1 {baseline['macro_f1']:.2%}"
    )
    return lines
