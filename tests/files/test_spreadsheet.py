"""Workbooks: the first sheet is read, and one that is no table is refused."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from support.tables import read, workbook, written

from distilora.errors import DataError, MissingExtra
from distilora.files.tables import read_table


def test_a_workbook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = datetime.datetime(2024, 5, 6, 7, 8)
    path = workbook(
        tmp_path / "t.xlsx",
        ["text", "label", "when", None, "n"],
        ["a, b\nc", "pos", day, "x", 1],
        [],
        ["é 🎬", "neg", datetime.date(2024, 5, 6), None, 2.5],
        [None, True],
        more=("notes", "more"),
    )
    records = list(read_table(path))
    assert [dict(r.values) for r in records] == [
        {"text": "a, b\nc", "label": "pos", "when": "2024-05-06T07:08:00", "unnamed_4": "x", "n": 1},
        {"text": "é 🎬", "label": "neg", "when": "2024-05-06T00:00:00", "unnamed_4": None, "n": 2.5},
        {"text": None, "label": True, "when": None, "unnamed_4": None, "n": None},
    ]
    assert [r.row for r in records] == [1, 3, 4]
    list(read_table(path))
    assert capsys.readouterr().err == f"{path}: sheet 'reviews' is read, the first of 3\n"  # once


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["text"], ["a", "b"]], "row 1: 2 cells under 1 column; name the column, or empty the cell"),
        ([["text", "text"], ["a", "b"]], "two columns called 'text'; rename one"),
        ([], "no header; the first row must name the columns"),
    ],
)
def test_a_workbook_that_is_no_table(rows: list[list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(workbook(tmp_path / "t.xlsx", *rows))


def test_a_broken_workbook(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "whole.xlsx", ["text"], ["a"]).read_bytes()
    for data in (b"no zip", whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=r"t\.xlsx: no Excel workbook, or a broken one \(.*\); save it again"):
            read(written(tmp_path / "t.xlsx", data))


def test_a_workbook_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "t.xlsx", ["text"], ["a"])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=r"pip install 'distilora\[excel\]'"):
        read(path)
