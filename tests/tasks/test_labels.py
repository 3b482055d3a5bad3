"""Labels are named once, equal numbers are one class, orders are natural, and graded names are asked about."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.tiny import divided, tiny_reviews, write_csv

from distilora.config.measuring import SourceConfig
from distilora.config.parse import parse
from distilora.config.schema import DataConfig, RunConfig
from distilora.errors import ConfigError, DataError
from distilora.tasks.classification import Classification
from distilora.tasks.labels import order_labels, order_note, whole_number
from distilora.tasks.scales import graded_order


def parts_of(path: Path, **settings: Any) -> SimpleNamespace:
    return divided(DataConfig(path=str(path), **settings))


def jsonl(path: Path, labels: list[Any]) -> Path:
    """Tiny reviews with these labels, in turn."""
    texts = [text for text, _ in tiny_reviews(60)]
    path.write_text(
        "".join(json.dumps({"text": t, "label": labels[n % len(labels)]}) + "\n" for n, t in enumerate(texts))
    )
    return path


@pytest.mark.parametrize("value", [["a", "b"], ["a"], {"a": 1}])
def test_a_label_is_one_word_or_number(value: Any, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", ["a", value])
    kind = type(value).__name__
    with pytest.raises(
        DataError, match=rf"row 2: data\.label_column: a label is .*, a {kind}; one word or number .*another column$"
    ):
        parts_of(path)
    with pytest.raises(DataError, match=rf"row 2: data\.label_column: a label is .*, a {kind}"):
        parts_of(path, labels=("a", "b"))
    with pytest.raises(DataError, match=rf"data\.label_column: a label is .*, a {kind}"):
        Classification(["a", "b"], "text", "label").read({"text": "x", "label": value})


def test_equal_numbers_are_one_class(tmp_path: Path) -> None:
    parts = parts_of(jsonl(tmp_path / "r.jsonl", [1, 2.0, 1.0, "2", "1.00"]))
    assert parts.task.labels == ("1", "2")
    assert len(parts.train) + len(parts.validation) + len(parts.read_test() if parts.read_test else []) == 60
    rows = [(text, ("1", "1.0", "2")[n % 3]) for n, (text, _) in enumerate(tiny_reviews(60))]
    assert parts_of(write_csv(tmp_path / "r.csv", rows)).task.labels == ("1", "2")


def test_white_space_around_a_label_does_not_count(tmp_path: Path) -> None:
    parts = parts_of(jsonl(tmp_path / "r.jsonl", ["pos ", "neg", "pos", "\tneg"]))
    assert parts.task.labels == ("neg", "pos")
    assert parts.task.index(" pos") == 1
    assert Classification(["neg", "pos", " pos"], "text", "label").index(" pos") == 2  # trained by an earlier release


def test_labels_that_differ_in_case_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["Pos", "neg", "pos"]
    assert parts_of(jsonl(tmp_path / "r.jsonl", labels)).task.labels == ("Pos", "neg", "pos")
    assert (
        "warning: labels differ in case alone and are classes of their own: 'Pos' and 'pos'; "
        in capsys.readouterr().err
    )
    parts_of(tmp_path / "r.jsonl", labels=tuple(labels))
    assert "differ in case" not in capsys.readouterr().err


def test_a_number_is_called_as_it_is_written(tmp_path: Path) -> None:
    parts = parts_of(jsonl(tmp_path / "r.jsonl", [1.0, 10.0, 2.0]))
    assert parts.task.labels == ("1.0", "2.0", "10.0")
    assert [parts.task.index(value) for value in (1, "2", 10.0)] == [0, 1, 2]  # type: ignore[attr-defined]
    assert parts_of(jsonl(tmp_path / "v.jsonl", ["1.10", "1.1", "007", "7"])).task.labels == ("1.1", "1.10", "007", "7")
    assert [whole_number(name) for name in ("1", "-1.0", "1.5", "007", "one", "True", "")] == [
        1,
        -1,
        None,
        None,
        None,
        None,
        None,
    ]


def test_true_beside_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"row 3: data\.label_column: 'label' holds True, but a number in .*row 1; write all labels in"
    ):
        parts_of(jsonl(tmp_path / "r.jsonl", [1, 0, True, False]))
    with pytest.raises(
        DataError, match=r"row 2: data\.label_column: 'label' holds 0, but true or false in .*row 1; write all"
    ):
        parts_of(jsonl(tmp_path / "r.jsonl", [True, 0]))
    assert parts_of(jsonl(tmp_path / "r.jsonl", [True, False])).task.labels == ("False", "True")


def test_not_a_number_is_blank(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2: data\.label_column: 'label' is blank; fill it, or drop the row$"):
        parts_of(jsonl(tmp_path / "r.jsonl", [1.0, float("nan")]))


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "-1", "0.5"], ["-1", "0.5", "2", "10"]),
        (["10 stars", "2 stars", "1 star"], ["1 star", "2 stars", "10 stars"]),
        (["class10", "class9", "other"], ["class9", "class10", "other"]),
        (["b", "10", "a", "9"], ["9", "10", "a", "b"]),
    ],
)
def test_natural_order(names: list[str], order: list[str]) -> None:
    assert order_labels(dict.fromkeys(names, ""), None, None) == tuple(order)


@pytest.mark.parametrize(
    "order",
    [
        ("low", "medium", "high"),
        ("Bad", "OK", "Good"),
        ("very_negative", "negative", "neutral", "positive", "very positive"),
        ("S", "M", "L", "XL"),
        ("never", "sometimes", "often"),
        ("one star", "two stars", "three stars", "four stars"),
        ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ],
)
def test_known_scales_are_recognised_and_asked_about(order: tuple[str, ...]) -> None:
    assert graded_order(tuple(sorted(order))) == graded_order(order[::-1]) == order
    assert order_note(order) == ""
    note = order_note(tuple(sorted(order)))
    flag = shlex.split(note[note.index("--data.labels") :])
    assert parse(RunConfig, flag).data.labels == order  # what is advised works


@pytest.mark.parametrize(
    "labels",
    [("high", "low"), ("sports", "politics", "tech"), ("low", "high", "blue"), ("ok", "okay", "good"), ("1", "2", "3")],
)
def test_other_labels_are_not_asked_about(labels: tuple[str, ...]) -> None:
    assert graded_order(labels) is None
    assert order_note(labels) == ""


def test_the_order_is_asked_for_once_it_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "r.jsonl", ["low", "medium", "high"])
    assert parts_of(path).task.labels == ("high", "low", "medium")
    assert (
        "note: the labels look graded, but are kept in alphabetical order (high, low, medium); "
        in capsys.readouterr().err
    )
    assert parts_of(path, labels=("low", "medium", "high")).task.labels == ("low", "medium", "high")
    assert "graded" not in capsys.readouterr().err


def test_the_text_is_not_its_label(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", ["a", "b"])
    with pytest.raises(
        DataError, match=r"^data\.label_column: 'label' is the column of the text; name another with --data\."
    ):
        parts_of(path, text_column="label")
    for config in (DataConfig, SourceConfig):
        with pytest.raises(
            ConfigError, match=r"^data\.label_column: 'text' is data\.text_column, too; name another column$"
        ):
            config(text_column="text", label_column="text")
