"""Reading of all labelled rows, copies with different labels, copies across splits, blank rows."""

from pathlib import Path

import pytest
from support.tiny import tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.data.audit import (
    Finding,
    Table,
    count_leaks,
    find_blank_and_odd,
    find_conflicts,
    find_copies,
    find_leaks,
    read_labelled,
    with_groups,
)
from distilora.data.examples import text_digest
from distilora.data.sources import open_source
from distilora.errors import DataError
from distilora.tasks.classification import Classification

TRAIN, TEST = tiny_reviews(40, 1), tiny_reviews(20, 2)


def read(config: DataConfig) -> Table:
    task = Classification.from_source(config, open_source(config.path))
    return read_labelled(config, task, task.label_column)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Splits with two copies across them, one with another label, a conflict inside train, and a blank row."""
    other = {"pos": "neg", "neg": "pos"}
    train = [*TRAIN, (f"{TRAIN[3][0]} ", other[TRAIN[3][1]]), ("<br />", "pos")]
    test = [*TEST, TRAIN[5], (TRAIN[6][0].upper(), other[TRAIN[6][1]])]
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", test)
    write_csv(tmp_path / "more.csv", [(text,) for text, _ in TEST], ("text",))
    return tmp_path


def places(table: Table, findings: list[Finding]) -> list[tuple[str, str]]:
    def name(i: int) -> str:
        return f"{table.rows[i].split} {table.rows[i].number}"

    return [(name(f.index), "" if f.other is None else name(f.other)) for f in findings]


def test_every_labelled_row_is_read(folder: Path) -> None:
    table = read(DataConfig(path=str(folder)))
    assert (table.splits, table.test) == (("train", "test"), "test")
    assert [(row.split, row.number) for row in table.rows] == [
        *(("train", i) for i in range(1, 43)),
        *(("test", i) for i in range(1, 23)),
    ]
    assert table.rows[40].digest == text_digest([f"{TRAIN[3][0]} "])
    assert table.rows[40].cleaned == TRAIN[3][0]
    assert len(table.filled) == len(table.rows) - 1


def test_copies(folder: Path) -> None:
    table = read(DataConfig(path=str(folder)))
    copies = find_copies(table)
    assert sorted(places(table, find_conflicts(table, copies))) == [
        ("test 22", "train 7"), ("train 4", "train 41"), ("train 41", "train 4"), ("train 7", "test 22"),
    ]  # fmt: skip
    assert sorted(places(table, find_leaks(table, copies))) == [("test 21", "train 6"), ("test 22", "train 7")]
    assert count_leaks(table, copies) == {"train / test": 2}


def test_blank(folder: Path) -> None:
    table = read(DataConfig(path=str(folder)))
    assert places(table, find_blank_and_odd(table)) == [("train 42", "")]


def test_a_test_split_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    single = write_csv(tmp_path / "reviews.csv", TRAIN)
    table = read(DataConfig(path=str(single), test_path=str(folder / "test.csv")))
    assert (table.splits, table.test) == (("train", "test"), "test")
    assert sorted(places(table, find_leaks(table, find_copies(table)))) == [
        ("test 21", "train 6"),
        ("test 22", "train 7"),
    ]
    with pytest.raises(DataError, match=r"^data\.test_path: its split would be called test"):
        read(DataConfig(path=str(folder), test_path=str(folder / "test.csv")))


def test_groups_join_clusters(tmp_path: Path) -> None:
    rows = [(text, label, str(i // 2)) for i, (text, label) in enumerate(TRAIN)] + [(*TRAIN[0], "other")]
    data = write_csv(tmp_path / "films.csv", rows, ("text", "label", "film"))
    table = read(DataConfig(path=str(data), group_column="film"))
    groups = with_groups(table, find_copies(table))
    assert groups[:4].tolist() == [0, 0, 2, 2]
    assert groups[-1] == 0


def test_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN)
    write_csv(tmp_path / "test.csv", [("a film", "so-so")])
    with pytest.raises(DataError, match=r"test\.csv: row 1: data\.label_column: label 'so-so' was not seen"):
        read(DataConfig(path=str(tmp_path)))
