"""Names of classes: what a value is called, which values are one class, and the order that is kept."""

from typing import Any

import pytest

from distilora.errors import DataError
from distilora.labels import names_in, order_labels, order_note
from distilora.scales import graded
from distilora.tables import Record
from distilora.tasks.classification import Classification


def places(*values: Any) -> dict[str, str]:
    return names_in([Record(f"x.csv: row {row}", {"label": value}) for row, value in enumerate(values, 1)], "label")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "2", "1"], ("1", "2", "10")),
        ([1, 1.0, 0], ("0", "1")),  # equal numbers are one class
        (["1", "1.0", "2.0"], ("1", "2.0")),
        ([1.5, 0.5], ("0.5", "1.5")),
        (["10 stars", "2 stars", "1 star"], ("1 star", "2 stars", "10 stars")),
        (["007", "7"], ("007", "7")),  # codes
        ([True, False], ("False", "True")),
        (["x", "3"], ("3", "x")),
    ],
)
def test_the_order_of_what_is_found(values: list[Any], labels: tuple[str, ...]) -> None:
    found = order_labels(places(*values), None, None)
    assert sorted(found, key=found.index) == sorted(labels, key=labels.index)
    task = Classification(found, "text", "label")
    for value in values:
        assert 0 <= task.index(value) < len(found)


def test_equal_numbers_have_one_index() -> None:
    task = Classification(order_labels(places(1, 1.0, 0), None, None), "text", "label")
    assert task.index(1) == task.index(1.0) == task.index("1") == task.index("1.0") == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a", ["b", "c"]], "x.csv: row 2: data.label_column: a label is ['b', 'c'], a list; one word or number"),
        (["a", {"b": 1}], "x.csv: row 2: data.label_column: a label is {'b': 1}, a dict; one word or number"),
        (
            [1, True],
            "x.csv: row 2: data.label_column: 'label' holds True, but a number in x.csv: row 1; write all labels",
        ),
        (
            [False, 1.0],
            "x.csv: row 2: data.label_column: 'label' holds 1.0, but true or false in x.csv: row 1; write all",
        ),
        (["a", " "], "x.csv: row 2: data.label_column: 'label' is blank; fill it, or drop the row"),
        (["a", None], "x.csv: row 2: data.label_column: 'label' is blank; fill it, or drop the row"),
        (["a", float("nan")], "x.csv: row 2: data.label_column: 'label' is blank; fill it, or drop the row"),
    ],
)
def test_what_is_no_label(values: list[Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        places(*values)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_one_class_is_too_few() -> None:
    with pytest.raises(DataError, match="only the class '1' found; two or more are needed"):
        order_labels(places(1, 1.0), None, None)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["high", "low", "medium"], ("low", "medium", "high")),
        (["bad", "good", "ok"], ("bad", "ok", "good")),
        (["negative", "neutral", "positive", "very negative", "very positive"],
         ("very negative", "negative", "neutral", "positive", "very positive")),
        (["five stars", "four stars", "one star"], ("one star", "four stars", "five stars")),
        (["L", "M", "S", "XL"], ("S", "M", "L", "XL")),
        (["sports", "politics", "science"], None),
        (["bad", "good"], None),  # two classes need no order
        (["average", "mid", "low"], None),  # two names of one level
    ],
)  # fmt: skip
def test_scales(labels: list[str], order: tuple[str, ...] | None) -> None:
    assert graded(labels) == order


def test_graded_labels_are_asked_about_and_the_advice_works() -> None:
    note = order_note(("high", "low", "medium"))
    assert '--data.labels \'["low", "medium", "high"]\'' in note
    assert order_note(("low", "medium", "high")) == order_note(("a", "b", "c")) == ""
