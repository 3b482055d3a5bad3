"""The report: one small HTML file with everything a reader needs to trust the figures, pictures embedded, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.evaluation.baselines import baselines_table
from distilora.evaluation.page import render
from distilora.evaluation.pictures import Picture, curves, draw, lengths
from distilora.evaluation.views import steps_table, views_table
from distilora.files.atomic import atomic_text
from distilora.tasks.base import Task
from distilora.tasks.showing import Section


def write_report(
    path: Path,
    title: str,
    task: Task,
    splits: Sequence[Mapping[str, Any]],
    *,
    history: Sequence[Mapping[str, float]] = (),
    sections: Sequence[Section] = (),
    notes: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    settings: str = "",
) -> None:
    """Write report.html.

    Args:
        task: chooses what to show of a split beside its metrics.
        splits: metrics from `measure`, the split to read first in front.
        history: losses by update, from training.
        sections: what else was measured, below the splits.
        notes: caveats a reader must know, such as where the figures flatter.
        facts: name -> value, shown below the metrics.
        settings: the resolved run.yaml, shown at the end.

    Raises MissingExtra without jinja2 or matplotlib.
    """
    page = render(
        "report.html.j2",
        title=title,
        splits=[_shown(task, split) for split in splits],
        sections=sections,
        curves=curves(history),
        notes=notes,
        facts=facts or {},
        settings=settings,
    )
    with atomic_text(path) as stream:
        stream.write(page)


def split_pictures(task: Task, split: Mapping[str, Any]) -> list[Picture]:
    """Draw the pictures of a split: those that its task shows, and the headline metric by length."""
    return [draw(picture) for picture in task.report(split).pictures] + lengths(split)


def _shown(task: Task, split: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare a split for the template: its metrics with the sentences, pictures and tables that its task shows."""
    report = task.report(split)
    beside = [views_table(split["views"])] if "views" in split else []
    beside += [baselines_table(split)] if split.get("ngram_baselines") else []
    beside += [steps_table(split["distillation"])] if "distillation" in split else []
    tables = [*beside, *report.tables]
    return {**split, "sentences": report.sentences, "pictures": split_pictures(task, split), "tables": tables}
