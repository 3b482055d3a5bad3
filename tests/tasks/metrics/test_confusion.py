"""What of a confusion matrix is drawn: all of it while it is small, the classes most often mistaken beyond."""

import numpy as np

from distilora.tasks.metrics.confusion import confusion_view, frequent_confusions


def cells(matrix: np.ndarray) -> dict[str, object]:
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted].tolist()
    return {"confusion_cells": {"true": true.tolist(), "predicted": predicted.tolist(), "count": counts}}


def test_a_small_one_is_drawn_whole_in_the_order_of_the_labels() -> None:
    view = confusion_view({"confusion": [[3, 1], [0, 4]]}, 2)
    assert view is not None
    assert (view.classes, view.matrix) == ([0, 1], [[3, 1], [0, 4]])


def test_the_classes_most_often_mistaken_are_drawn() -> None:
    matrix = np.diag(np.arange(1, 31))
    wrong = [(29, 3, 9), (3, 29, 2), (7, 8, 5)] + [(i, i + 1, 1) for i in range(10, 26)]
    for true, predicted, count in wrong:
        matrix[true, predicted] += count
    view = confusion_view(cells(matrix), 30)
    assert view is not None
    assert len(view.classes) == 20
    assert view.classes == sorted(view.classes)  # the task's order
    assert {29, 3, 7, 8, *range(11, 26)} <= set(view.classes)
    assert view.matrix == matrix[np.ix_(view.classes, view.classes)].tolist()
    assert (
        f"{9 + 2 + 5 + sum(1 for i in range(10, 26) if {i, i + 1} <= set(view.classes))} of all 32 mistakes"
        in view.caption
    )
    most = frequent_confusions(cells(matrix), [f"c{i}" for i in range(30)], 3)
    assert [tuple(row.values()) for row in most] == [("c29", "c3", 9), ("c7", "c8", 5), ("c3", "c29", 2)]


def test_without_mistakes_the_most_frequent_classes_are_drawn() -> None:
    view = confusion_view(cells(np.diag(np.arange(1, 31))), 30)
    assert view is not None
    assert view.classes == list(range(10, 30))
    assert frequent_confusions(cells(np.diag(np.arange(1, 31))), [""] * 30) == []


def test_a_task_without_classes_has_none() -> None:
    assert confusion_view({}, 0) is None
    assert frequent_confusions({}, []) == []
