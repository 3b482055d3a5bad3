"""Labels and columns are those that are named, else those that are found; blank ones are no examples."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.parts import parts_of, test_of
from support.tiny import tiny_reviews, write_csv

from distilora.errors import ConfigError, DataError
from distilora.files.tables import write_table


def test_labels_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", tiny_reviews(60))
    parts = parts_of(path, labels=("pos", "neg"))
    assert parts.task.labels == ("pos", "neg")
    assert all(("pos", "neg")[e.target] == dict(tiny_reviews(60))[e.texts[0]] for e in parts.train.items)
    message = r"row 1: data\.labels: 'neg' is not in the list \(pos, negative\); add it, or correct the row$"
    with pytest.raises(DataError, match=message):
        parts_of(path, labels=("pos", "negative"))
    absent = parts_of(path, labels=("pos", "mixed", "neg"))
    assert absent.task.labels == ("pos", "mixed", "neg")
    assert "'mixed' has none in train, none in validation, none in heldout." in absent.notes[0]


def test_labels_given_for_whole_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(text, str(int(label == "pos"))) for text, label in tiny_reviews(60)]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows), labels=("negative", "positive"))
    assert Counter(parts.train.targets) == {0: 22, 1: 22}
    assert parts.notes == []
    assert "place" not in capsys.readouterr().err


def test_labels_of_the_source(tmp_path: Path) -> None:
    for n, (text, label) in enumerate(tiny_reviews(60)):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / f"{n}_{8 if label == 'pos' else 2}.txt").write_text(text)
    parts = parts_of(tmp_path)
    assert parts.task.labels == ("neg", "pos")
    truth = dict(tiny_reviews(60))
    assert all(parts.task.labels[e.target] == truth[e.texts[0]] for e in parts.train.items)
    assert parts_of(tmp_path, labels=("bad", "good")).task.labels == ("bad", "good")
    with pytest.raises(DataError, match=r"^data\.labels: 3 given, but the source has neg, pos"):
        parts_of(tmp_path, labels=("a", "b", "c"))


def test_labels_found_are_sorted_numbers_by_value(tmp_path: Path) -> None:
    rows = [(text, str((10, 9, 1)[n % 3])) for n, (text, _) in enumerate(tiny_reviews(90))]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows))
    assert parts.task.labels == ("1", "9", "10")
    write_table(tmp_path / "r.jsonl", [{"text": text, "stars": int(stars)} for text, stars in rows])
    numbers = parts_of(tmp_path / "r.jsonl")
    assert numbers.task.labels == ("1", "9", "10")
    assert numbers.task.settings["label_column"] == "stars"
    assert parts_of(write_csv(tmp_path / "w.csv", tiny_reviews(60)[::-1])).task.labels == ("neg", "pos")


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_label_is_no_class(blank: str, tmp_path: Path) -> None:
    rows = [*tiny_reviews(60), ("no label", blank), ("nor this", blank)]
    with pytest.raises(DataError, match=r"row 61: data\.label_column: 'label' is blank; fill it, or drop the row"):
        parts_of(write_csv(tmp_path / "r.csv", rows))


def test_a_null_label_is_no_class(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in tiny_reviews(60)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"text": "x", "label": None}]))
    with pytest.raises(DataError, match=r"row 61: data\.label_column: 'label' is blank"):
        parts_of(tmp_path / "r.jsonl")


def test_blank_texts_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [*tiny_reviews(60), ("", "neg"), ("<br />", "pos")]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows))
    assert (parts.summary["read"], parts.summary["blank_skipped"]) == (62, 2)
    assert len(parts.train) + len(parts.validation) + len(test_of(parts)) == 60
    with pytest.raises(DataError, match="row 61: the text is blank"):
        parts_of(tmp_path / "r.csv", strict=True)


def test_too_few_to_divide(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only the class 'neg' found; two or more are needed"):
        parts_of(write_csv(tmp_path / "same.csv", tiny_reviews(60)[::2]))
    blank = [*tiny_reviews(60)[::2], ("", "pos")]
    with pytest.raises(DataError, match=r"split train holds examples of 'neg' only; two classes or more are needed$"):
        parts_of(write_csv(tmp_path / "blank.csv", blank))
    rows = [(text, "abc"[n % 3]) for n, (text, _) in enumerate(tiny_reviews(90))]
    path = write_csv(tmp_path / "three.csv", rows)
    with pytest.raises(ConfigError, match=r"^data\.train_size: 2 given, but there are 3 classes .*; give 3 or more$"):
        parts_of(path, train_size=2)
    assert sorted(parts_of(path, train_size=3).train.targets) == [0, 1, 2]


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    rows = [(f"{n}", label, text) for n, (text, label) in enumerate(tiny_reviews(60))]
    path = write_csv(tmp_path / "r.csv", rows, ("id", "Sentiment", "Review"))
    assert parts_of(path).task.settings == {
        "labels": ["neg", "pos"], "text_column": "Review", "label_column": "Sentiment"
    }  # fmt: skip
    odd = write_csv(tmp_path / "odd.csv", rows, ("id", "verdict", "words"))
    parts = parts_of(odd, text_column="words", label_column="verdict")
    assert parts.task.settings["label_column"] == "verdict"
    with pytest.raises(
        DataError, match=r"^data\.text_column: no column called text, .* \(columns: id, verdict, words\)"
    ):
        parts_of(odd)
    with pytest.raises(DataError, match=r"^data\.label_column: no column 'x' \(columns: .*; name one with --data"):
        parts_of(odd, text_column="words", label_column="x")
