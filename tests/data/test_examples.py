"""Records become examples: read by the task, cleaned, blank ones skipped and counted."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from distilora.config.schema import DataConfig
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example, Examples, read_examples, text_digest
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.tasks.classification import Classification

TASK = Classification(["neg", "pos"], "text", "label")


def from_rows(rows: Iterable[dict[str, Any]], **settings: Any) -> Examples:
    records = (Record(f"f.csv: row {n}", row) for n, row in enumerate(rows, 1))
    options: dict[str, Any] = {"split": "train", "strict": False, **settings}
    return read_examples(records, TASK, cleaning("html"), **options)


def test_read_cleaned_and_placed() -> None:
    examples = from_rows([{"text": "A<br />b", "label": "pos"}, {"text": "c", "label": 0}])
    assert examples.items == [
        Example(("A b",), 1, "f.csv: row 1", digest=text_digest(["A<br />b"])),
        Example(("c",), 0, "f.csv: row 2", digest=text_digest(["c"])),
    ]
    assert (len(examples), examples.targets, examples.split, examples.skipped) == (2, [1, 0], "train", 0)


def test_a_digest_tells_texts_apart() -> None:
    digests = {text_digest(texts) for texts in (["a b"], ["a", "b"], ["a", " b"], ["a b "], ["A b"], ["\u00e4"])}
    assert len(digests) == 6
    assert {len(digest) for digest in digests} == {32}
    assert text_digest(("a b",)) == text_digest(["a b"])


@pytest.mark.parametrize("blank", [None, "", "  \n", "<br />", "&nbsp;"])
def test_a_blank_text_is_skipped_and_counted(blank: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "a", "label": "pos"}, {"text": blank, "label": "neg"}, {"text": "b", "label": "neg"}]
    examples = from_rows(rows)
    assert [e.texts[0] for e in examples.items] == ["a", "b"]
    assert examples.skipped == 1
    assert capsys.readouterr().err == "train: skipped 1 blank texts\n"
    with pytest.raises(DataError, match=r"^f\.csv: row 2: the text is blank; fill it, or drop --data\.strict"):
        from_rows(rows, strict=True)


def test_one_part_with_words_is_enough() -> None:
    task = SimpleNamespace(read=lambda _: Example(("", "words")), cleaned=lambda example, _: example)
    examples = read_examples([Record("r", {})], task, cleaning("none"), "train", strict=True)
    assert examples.items[0].texts == ("", "words")


def test_nothing_left_is_an_error() -> None:
    for rows in ([], [{"text": "", "label": "pos"}]):
        with pytest.raises(DataError, match=r"^test: no example with a text; check data\.text_column"):
            from_rows(rows, split="test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a", "label": "meh"},
            r"data\.label_column: label 'meh' was not seen in training \(labels: neg, pos\)",
        ),
        ({"text": "a", "label": None}, r"data\.label_column: label None was not seen"),
        ({"text": "a", "label": 2}, r"data\.label_column: label 2 was not seen"),
        ({"text": "a", "label": -1}, r"data\.label_column: label -1 was not seen"),
        ({"text": 5, "label": "pos"}, r"data\.text_column: 'text' holds int, not text"),
        ({"review": "a", "label": "pos"}, r"data\.text_column: no column 'text' \(columns: review, label\)"),
        ({"text": "a", "class": "pos"}, r"data\.label_column: no column 'label' \(columns: text, class\)"),
    ],
)
def test_an_unusable_record_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.csv: row 2: {message}"):
        from_rows([{"text": "a", "label": "pos"}, row])


def test_groups() -> None:
    rows = [{"text": "a", "label": "pos", "film": "Alien"}, {"text": "b", "label": "neg", "film": None}]
    assert [e.group for e in from_rows(rows, columns=DataConfig(group_column="film")).items] == ["Alien", None]
    assert [e.group for e in from_rows(rows).items] == [None, None]
    with pytest.raises(
        DataError, match=r"^f\.csv: row 1: data\.group_column: no column 'author' \(columns: text, label, film\)"
    ):
        from_rows(rows, columns=DataConfig(group_column="author"))


def test_numbers_of_the_order() -> None:
    by_id = DataConfig(carve="consecutive", order_column="id")
    rows = [{"text": "a", "label": "pos", "id": 7}, {"text": "b", "label": "neg", "id": " 2.5"}]
    assert [e.order for e in from_rows(rows, columns=by_id).items] == [7, 2.5]
    assert [e.order for e in from_rows(rows, columns=DataConfig(carve="consecutive")).items] == [None, None]
    for value in ("second", None, "", float("nan"), [1]):
        message = r"^f\.csv: row 2: data\.order_column: 'id' holds .*, not a number; name a column of numbers$"
        with pytest.raises(DataError, match=message):
            from_rows([rows[0], {**rows[1], "id": value}], columns=by_id)
    with pytest.raises(
        DataError,
        match=r"row 1: data\.order_column: no column 'n' \(columns: text, label, id\); name one of them, or drop it$",
    ):
        from_rows(rows, columns=DataConfig(carve="consecutive", order_column="n"))


def test_take() -> None:
    examples = Examples("train", [Example((text,)) for text in "abc"], skipped=4)
    reordered = examples.take([2, 0], "test")
    assert ([e.texts[0] for e in reordered.items], reordered.split, reordered.skipped) == (["c", "a"], "test", 0)
    assert examples.take([1]).split == "train"
