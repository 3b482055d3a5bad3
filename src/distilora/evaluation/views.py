"""Measures what a combined model is made of: the encoder alone, the n-gram expert alone, and what combining them gains.

Each view has figures of its own, under its own name, calibrated by itself; none borrows the other's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distilora.data.examples import Examples
from distilora.inference.calibrate import Calibrator, Outputs
from distilora.tasks.base import Task
from distilora.tasks.metrics.names import metric_text
from distilora.tasks.metrics.paired import mcnemar, paired_difference
from distilora.tasks.showing import Table

STEPS = {
    "expert": "n-gram expert alone",
    "teacher_encoder": "encoder trained on the labels",
    "teacher": "both combined: the teacher",
    "encoder": "student: the encoder trained on soft labels, too",
    "combined": "student and n-gram expert combined",
}  # of distillation (runs/distil.py)
NAMES = {"encoder": "encoder alone", "expert": "n-gram expert alone", "combined": "combined"}


def measure_views(
    task: Task,
    calibrate: Calibrator,
    outputs: Outputs,
    combined: Outputs,
    examples: Examples,
    targets: Sequence[Any],
    resamples: int,
) -> dict[str, Any]:
    """Measure each view of a combined model; {} for an encoder without an expert.

    Args:
        outputs: the encoder's own, [G, C].
        combined: what the model decodes, [G, C].

    Returns `metrics` by view, and for every view but the combined one the `gain` of combining: the paired difference of
    the accuracies with McNemar's test.
    """
    views = {**calibrate.views(outputs, examples.items), "combined": combined}
    if len(views) == 1:
        return {}
    metrics = {}
    for name, view in views.items():
        metrics[name] = task.metrics(view, targets, resamples)
        metrics[name].pop("figures", None)
    gain = {}
    correct = task.hits(combined, targets)
    for name in metrics:
        if name != "combined":
            of_view = task.hits(views[name], targets)
            gain[name] = {**paired_difference(correct, of_view, resamples), "mcnemar": mcnemar(correct, of_view)}
    return {"metrics": metrics, "gain": gain}


def views_table(views: Mapping[str, Any]) -> Table:
    """Lay the views out as a table, a row each."""
    names = [name for name in ("accuracy", "macro_f1", "log_loss", "ece") if name in views["metrics"]["combined"]]
    names = names or list(views["metrics"]["combined"])[:4]
    rows = []
    for view, title in NAMES.items():
        gain = views["gain"].get(view)
        text = "" if gain is None else f"{points(gain)}, McNemar p = {gain['mcnemar']['p']:.2g}"
        rows.append((title, *(metric_text(name, views["metrics"][view][name]) for name in names), text))
    titles = {"accuracy": "accuracy", "macro_f1": "macro F1", "log_loss": "log loss", "ece": "ECE"}
    columns = ("model", *(titles.get(name, name) for name in names), "combined minus this")
    return Table("Encoder, n-gram expert, and both", columns, rows)


def points(difference: Mapping[str, Any]) -> str:
    """Format a difference of shares in points, with its interval, as '+0.7 points (0.2 to 1.4)'."""
    text = f"{100 * difference['value']:+.1f} points"
    if difference["low"] is not None:
        text += f" ({100 * difference['low']:.1f} to {100 * difference['high']:.1f})"
    return text


def view_lines(split: Mapping[str, Any]) -> list[str]:
    """Format the views of a combined model as lines for the terminal; [] for any other."""
    views = split.get("views")
    if not views:
        return []
    metric = next(iter(views["metrics"]["combined"]))
    lines = [
        f"  {title}: {metric} {metric_text(metric, views['metrics'][view][metric])}" for view, title in NAMES.items()
    ]
    gains = (f"{points(gain)} over the {NAMES[view]}" for view, gain in views["gain"].items())
    return ["", *lines, "  combining gains " + ", ".join(gains)]


def steps_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what each step of a distillation gives, and gains over the step before, as a table."""
    rows = []
    for row in steps:
        gain = row.get("gain")
        text = "" if gain is None else f"{points(gain)}, McNemar p = {gain['mcnemar']['p']:.2g}"
        rows.append((STEPS[row["step"]], metric_text(row["metric"], {"value": row["value"]}), text))
    return Table("Step by step", ("model", "accuracy", "minus the step before"), rows)


def step_lines(split: Mapping[str, Any]) -> list[str]:
    """Format the steps of a distillation as lines for the terminal; [] for a model that was not distilled."""
    lines = []
    for row in split.get("distillation", ()):
        gain = f" ({points(row['gain'])})" if "gain" in row else ""
        lines.append(
            f"  {STEPS[row['step']]}: {row['metric']} {metric_text(row['metric'], {'value': row['value']})}{gain}"
        )
    return ["", *lines] if lines else []
