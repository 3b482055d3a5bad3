"""Rows keep their order, their examples and their lengths, however they are cut, picked and joined."""

import numpy as np
import pytest

from distilora.batching.rows import Rows, rows_of

SPANS = [[[1, 2, 3]], [[4], [5, 6]], [[], [7, 8, 9, 10], [11]]]


def listed(rows: Rows) -> list[list[list[int]]]:
    groups: list[list[list[int]]] = [[] for _ in range(rows.groups)]
    for i, group in enumerate(rows.group):
        assert rows.row[i] == len(groups[group])
        groups[group].append(rows.ids[rows.offsets[i] : rows.offsets[i + 1]].tolist())
    return groups


def test_rows_of_examples() -> None:
    rows = rows_of(SPANS)
    assert listed(rows) == SPANS
    assert (len(rows), rows.groups) == (6, 3)
    assert rows.lengths.tolist() == [3, 1, 2, 0, 4, 1]
    assert rows.group_offsets.tolist() == [0, 1, 3, 6]
    assert rows.group_lengths.tolist() == [3, 3, 5]
    assert rows.ids.dtype == np.int32


def test_take_renumbers_in_the_order_given() -> None:
    assert listed(rows_of(SPANS).take([2, 0])) == [SPANS[2], SPANS[0]]
    assert listed(rows_of(SPANS).take([1, 1])) == [SPANS[1], SPANS[1]]
    assert len(rows_of(SPANS).take([])) == 0


def test_nothing() -> None:
    empty = rows_of([])
    assert (len(empty), empty.groups, empty.group_lengths.tolist()) == (0, 0, [])


def test_an_example_needs_a_row() -> None:
    with pytest.raises(ValueError, match="without rows"):
        rows_of([[[1]], []])


@pytest.mark.parametrize(
    ("ids", "offsets", "row", "group"),
    [
        ([1, 2], [0, 2], [0, 0], [0, 0]),  # one row, two places
        ([1, 2], [0, 1], [0], [0]),  # an id left over
        ([1, 2], [1, 2], [0], [0]),  # does not begin at 0
        ([1, 2], [0, 2, 1, 2], [0, 0, 0], [0, 1, 2]),  # offsets fall
        ([1, 2], [0, 1, 2], [0, 0], [1, 2]),  # groups do not begin at 0
        ([1, 2], [0, 1, 2], [0, 0], [0, 2]),  # a group left out
        ([1, 2], [0, 1, 2], [0, 0], [0, -1]),  # groups fall
    ],
)
def test_what_does_not_fit_is_refused(ids: list[int], offsets: list[int], row: list[int], group: list[int]) -> None:
    with pytest.raises(ValueError, match=r"disagree|offsets must|groups must"):
        Rows(np.asarray(ids, np.int32), np.asarray(offsets), np.asarray(row), np.asarray(group))
