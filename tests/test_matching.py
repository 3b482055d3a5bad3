"""Labels of other data: matched by name, or by place, and the latter is said."""

from typing import Any

import pytest

from distilora.errors import DataError
from distilora.matching import matched
from distilora.tables import Record
from distilora.tasks.classification import Classification

TASK = Classification(("neg", "pos"), "text", "label")


def labels(values: list[Any], names: list[str] | None, notes: list[str]) -> list[int | None]:
    records = [Record(f"row {row}", {"text": "a", "label": value}) for row, value in enumerate(values, 1)]
    return [TASK.read(record.values).target for record in matched(records, TASK, names, "x.csv", notes)]


def test_numbers_of_a_csv_are_matched_by_place_and_that_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    assert labels(["1", "0", 1, "pos"], None, notes) == [1, 0, 1, 1]
    assert notes == ["Labels of x.csv are matched by their place: 0 = neg, 1 = pos."]
    assert capsys.readouterr().err == f"warning: {notes[0]}\n"


def test_names_are_matched_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    assert labels(["pos", "neg"], None, notes) == [1, 0]
    assert labels([0, 1], ["pos", "neg"], notes) == [1, 0]  # the source's names in another order
    assert (notes, capsys.readouterr().err) == ([], "")


def test_other_names_of_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    assert labels([1, 0], ["bad", "good"], notes) == [1, 0]
    assert notes == ["Labels of x.csv are matched by their place: bad = neg, good = pos."]
    with pytest.raises(DataError, match=r"x\.csv has labels a, b, c, the model neg, pos; give data with the same ones"):
        labels([1], ["a", "b", "c"], notes)
