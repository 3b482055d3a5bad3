"""Computes and lays out the figures of a classifier's classes: rare classes, metrics of each, majority baseline, mistakes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distilora.data.examples import Examples
from distilora.tasks.base import Measurement
from distilora.tasks.metrics.baseline import majority_baseline, verdict
from distilora.tasks.metrics.classification import CURVES
from distilora.tasks.metrics.classification import SHOWN as MOST_SHOWN
from distilora.tasks.metrics.confusion import confusion_view, frequent_confusions
from distilora.tasks.metrics.names import share_text
from distilora.tasks.showing import Coverage, Curve, Curves, Histogram, Matrix, Picture, Reliability, Shown, Table

FEW = 5  # training examples below which a class is reported as rare
MOST_LISTED = 5  # rare classes
EXCERPT = 600  # characters of a mistake's text
WEAKEST = 10  # classes shown if there are more than MOST_SHOWN; the others are folded
MOST_LINES = 12  # classes on the terminal: the weakest, if there are more
WIDTH = 32  # characters of a class's name on the terminal


def rare_classes(labels: Sequence[str], parts: Sequence[Examples]) -> str:
    """Describe in a sentence the classes with no example in a part, or fewer than FEW in training; empty if there are none.

    Args:
        parts: training first; targets are indices into `labels`.
    """
    counts = [Counter(part.targets) for part in parts]
    rare = [i for i in range(len(labels)) if counts[0][i] < FEW or not all(count[i] for count in counts)]
    if not rare:
        return ""
    listed = "; ".join(
        f"{labels[i]!r} has "
        + ", ".join(f"{_examples(count[i])} in {part.split}" for count, part in zip(counts, parts, strict=True))
        for i in rare[:MOST_LISTED]
    )
    more = f"; and {len(rare) - MOST_LISTED:,} more" if len(rare) > MOST_LISTED else ""
    return (
        f"Rare classes: {listed}{more}. They are hardly learnt, and the figures say little or nothing about them; add "
        "examples."
    )


def _examples(count: int) -> str:
    return "none" if count == 0 else "1 example" if count == 1 else f"{count:,} examples"


def class_findings(labels: Sequence[str], measurement: Measurement) -> dict[str, Any]:
    """Compute `classes` (figures of each), `baseline`, `verdict` and `mistakes` of a split, as JSON values."""
    rows = measurement.figures.pop("per_class")  # stored as `classes`, with their labels
    classes = [{"label": label, **row} for label, row in zip(labels, rows, strict=True)]
    baseline = majority_baseline(classes, measurement.training_counts)
    return {
        "classes": classes,
        "baseline": baseline,
        "verdict": verdict(measurement.metrics, classes, baseline),
        "mistakes": _mistakes(labels, measurement),
    }


def _mistakes(labels: Sequence[str], measurement: Measurement) -> list[dict[str, Any]]:
    """List the most confident mistakes, most confident first."""
    examples, answers = measurement.examples.items, measurement.answers
    wrong = [i for i, answer in enumerate(answers) if answer["label"] != labels[examples[i].target]]
    wrong.sort(key=lambda i: -answers[i]["score"])
    return [
        {
            "place": examples[i].place,
            "target": labels[examples[i].target],
            "label": answers[i]["label"],
            "score": answers[i]["score"],
            "text": _excerpt(" ".join(examples[i].texts)),
        }
        for i in wrong[: measurement.max_mistakes]
    ]


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT // 2]} [...] {text[-EXCERPT // 2 :]}"


def class_report(split: Mapping[str, Any]) -> Shown:
    """Lay out a split's classes for the report; of many classes, the weakest come first."""
    return Shown(_sentences(split), _pictures(split), _tables(split))


def _sentences(split: Mapping[str, Any]) -> list[str]:
    if "baseline" not in split:
        return []
    baseline = split["baseline"]
    return [
        f"Always answering {baseline['label']}, the most frequent class of {baseline['of']}, would reach an accuracy of "
        f"{baseline['accuracy']:.2%} and a macro F1 of {baseline['macro_f1']:.2%}."
    ]


def _pictures(split: Mapping[str, Any]) -> list[Picture]:
    figures, labels = split["figures"], split["labels"]
    pictures: list[Picture] = []
    view = confusion_view(figures, len(labels))
    if view is not None:
        pictures.append(Matrix(view.caption, view.matrix, [labels[c] for c in view.classes]))
    if len(figures.get("reliability", ())) > 1:  # a single point or bar says nothing
        pictures.append(Reliability("Reliability: on the diagonal, confidence is accuracy", figures["reliability"]))
    if figures.get("roc"):
        curves = [Curve(labels[c["class"]], c["false_positive"], c["true_positive"]) for c in figures["roc"]]
        subset = (
            f"s of the {len(curves)} classes with the lowest AUROC, of {len(labels)}" if len(labels) > CURVES else ""
        )
        pictures.append(Curves(f"ROC curve{subset}", curves, "false positive rate", "true positive rate"))
    if sum(count > 0 for count in figures.get("confidence", ())) > 1:
        pictures.append(Histogram("How confident the answers are", figures["confidence"], "confidence"))
    selective = figures.get("risk_coverage")
    if selective and len(selective["coverage"]) > 1:
        area = selective["aurc"]
        bounds = "" if area["low"] is None else f", {area['low']:.4f} to {area['high']:.4f}"
        caption = (
            "Accuracy of the most confident answers by the share answered; area under the risk-coverage curve (AURC): "
            f"{area['value']:.4f}{bounds}"
        )
        pictures.append(Coverage(caption, selective["coverage"], selective["accuracy"]))
    return pictures


def _tables(split: Mapping[str, Any]) -> list[Table]:
    classes, tables = split.get("classes", []), []
    if len(classes) > MOST_SHOWN:
        defined = [row for row in classes if row["f1"] is not None]
        weakest = sorted(defined, key=lambda row: float(row["f1"]))[:WEAKEST]
        tables = [
            _class_table("The classes with the lowest F1", weakest),
            _class_table("", classes, f"All {len(classes)} classes"),
        ]
        confusions = frequent_confusions(split["figures"], split["labels"])
        if confusions:
            rows = [(row["true"], row["predicted"], f"{row['count']:,}") for row in confusions]
            tables.append(Table("The most frequent confusions", ("true", "predicted", "examples"), rows))
    elif classes:
        tables = [_class_table("Each class", classes)]
    if selective := split["figures"].get("risk_coverage"):
        tables.append(_coverage_table(selective["at_accuracy"]))
    if split.get("mistakes"):
        mistakes = [(row["target"], row["label"], f"{row['score']:.3f}", row["text"]) for row in split["mistakes"]]
        columns = ("true", "predicted", "confidence", "text")
        tables.append(Table("The most confident mistakes", columns, mistakes, text=("text",)))
    return tables


def _coverage_table(coverages: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{row['accuracy']:.0%}",
            share_text(row["value"]) if row["score"] is not None else "none",
            "" if row["low"] is None else f"{share_text(row['low'])} to {share_text(row['high'])}",
            "" if row["score"] is None else f"{row['score']:.4g}",
        )
        for row in coverages
    ]
    columns = ("accuracy of the answers", "share answered", "95% interval", "lowest score answered")
    return Table("Answering only the most confident, in hindsight", columns, rows)


def _class_table(title: str, classes: Sequence[Mapping[str, Any]], fold: str = "") -> Table:
    rows = [
        (
            row["label"],
            *(share_text(row[name]) for name in ("precision", "recall", "f1")),
            f"{row['support']:,}",
            f"{row['predicted']:,}",
        )
        for row in classes
    ]
    return Table(title, ("class", "precision", "recall", "F1", "examples", "answered"), rows, fold=fold)


def class_lines(split: Mapping[str, Any]) -> list[str]:
    """Format the classes as lines of a table of precision, recall, F1 and examples, with the baseline below; [] without classes.

    Of more than MOST_LINES classes, those with the lowest F1 are listed, and a line says how many there are.
    """
    classes = split.get("classes", [])
    if not classes:
        return []
    shown = classes
    if len(classes) > MOST_LINES:
        weakest = sorted((row for row in classes if row["f1"] is not None), key=lambda row: float(row["f1"]))
        shown = weakest[:MOST_LINES]
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
    baseline = split["baseline"]
    lines.append(
        f"  always {baseline['label']!r}, the most frequent of {baseline['of']}: accuracy {baseline['accuracy']:.2%}, "
        f"macro F1 {baseline['macro_f1']:.2%}"
    )
    return lines


def constant_answer(splits: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how often the majority baseline is right on each split; empty where no split has one."""
    measured = [split for split in splits if "baseline" in split]
    if not measured:
        return []
    baseline = measured[0]["baseline"]
    shares = [
        f"{split['baseline']['accuracy']:.2%} of {split['split']} (macro F1 {split['baseline']['macro_f1']:.2%})"
        for split in measured
    ]
    return [
        f"Always answering {baseline['label']}, the most frequent class of {baseline['of']}, would be right on "
        f"{' and '.join(shares)}."
    ]
