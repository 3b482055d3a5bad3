"""The part of a confusion matrix that fits on a page: all of it, or the classes with the most mistakes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilora.tasks.metrics.classification import SHOWN


class View(NamedTuple):
    """A confusion matrix [true][predicted] of `classes`, in the task's order, with a caption that says what it omits."""

    classes: list[int]
    matrix: list[list[int]]
    caption: str


class Cells(NamedTuple):
    """The non-empty cells of a confusion matrix, [M] each."""

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]


def cells_of(figures: Mapping[str, Any]) -> Cells | None:
    """Return the cells in the figures of `classification_metrics`; None if there is no confusion matrix."""
    if "confusion" in figures:
        matrix = np.asarray(figures["confusion"], np.int64)
        true, predicted = np.nonzero(matrix)
        return Cells(true, predicted, matrix[true, predicted])
    if "confusion_cells" in figures:
        return Cells(
            *(np.asarray(figures["confusion_cells"][name], np.int64) for name in ("true", "predicted", "count"))
        )
    return None


def confusion_view(figures: Mapping[str, Any], classes: int) -> View | None:
    """Choose the classes to draw: all, or, beyond SHOWN, those with the most mistakes, as target or as prediction."""
    if "confusion" in figures:
        matrix = figures["confusion"]
        return View(list(range(len(matrix))), matrix, "Confusion matrix: rows are the true class")
    cells = cells_of(figures)
    if cells is None:
        return None
    wrong = np.where(cells.true != cells.predicted, cells.counts, 0)
    mistakes = np.bincount(cells.true, wrong, classes) + np.bincount(cells.predicted, wrong, classes)
    support = np.bincount(cells.true, cells.counts, classes)
    chosen = np.sort(np.lexsort((-support, -mistakes))[:SHOWN])
    position = np.full(classes, -1)
    position[chosen] = np.arange(len(chosen))
    inside = (position[cells.true] >= 0) & (position[cells.predicted] >= 0)
    matrix = np.zeros((len(chosen), len(chosen)), np.int64)
    matrix[position[cells.true[inside]], position[cells.predicted[inside]]] = cells.counts[inside]
    caption = (
        f"Confusion matrix of the {len(chosen)} classes with the most mistakes, of {classes}: rows are the true class; "
        f"{int(wrong[inside].sum()):,} of all {int(wrong.sum()):,} mistakes lie between these classes. All cells are in "
        "metrics.json (confusion_cells)."
    )
    return View(chosen.tolist(), matrix.tolist(), caption)


def frequent_confusions(figures: Mapping[str, Any], labels: list[str], most: int = SHOWN) -> list[dict[str, Any]]:
    """List the pairs of classes confused most often: true, predicted, count, most frequent first."""
    cells = cells_of(figures)
    if cells is None:
        return []
    wrong = np.flatnonzero(cells.true != cells.predicted)
    order = wrong[np.argsort(-cells.counts[wrong], kind="stable")][:most]
    return [
        {"true": labels[cells.true[i]], "predicted": labels[cells.predicted[i]], "count": int(cells.counts[i])}
        for i in order
    ]
