"""The columns that a model is measured on: an unrelated column is never taken for the label."""

from collections.abc import Mapping

import pytest

from distilora.config.measuring import SourceConfig
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.tasks.classification import Classification
from distilora.tasks.columns import measured_columns

TASK = Classification(("neg", "pos"), "review", "stars")


def source(names: Mapping[str, tuple[str, ...]] | None = None) -> Source:
    return Source("data.csv", ("train",), lambda split: iter(()), names or {})


def test_the_columns_of_training() -> None:
    columns = ("label", "text", "stars", "review")
    assert measured_columns(TASK, source(), columns, SourceConfig()) == ("review", "stars")


def test_an_unrelated_label_is_refused() -> None:
    with pytest.raises(DataError) as refused:
        measured_columns(TASK, source(), ("review", "label"), SourceConfig())
    assert str(refused.value) == (
        "data.label_column: no column 'stars', the label of training (columns: review, label); name one with "
        "--data.label_column"
    )
    columns = SourceConfig(label_column="label")
    assert measured_columns(TASK, source(), ("review", "label"), columns) == ("review", "label")
    with pytest.raises(DataError, match=r"^data\.label_column: no column 'grade'"):
        measured_columns(TASK, source(), ("review", "stars"), SourceConfig(label_column="grade"))


def test_a_label_that_the_source_declares_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    declared = source({"label": ("neg", "pos")})
    assert measured_columns(TASK, declared, ("review", "label", "rating"), SourceConfig()) == ("review", "label")
    assert "note: labels are read from column 'label'" in capsys.readouterr().err
    odd = source({"Polarity": ("neg", "pos")})
    assert measured_columns(TASK, odd, ("review", "label", "Polarity"), SourceConfig()) == ("review", "Polarity")


def test_another_text_column_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured_columns(TASK, source(), ("sentence", "stars"), SourceConfig()) == ("sentence", "stars")
    assert capsys.readouterr().err == "note: no column 'review' as in training: texts are read from 'sentence'\n"
    columns = SourceConfig(text_column="sentence")
    assert measured_columns(TASK, source(), ("sentence", "stars"), columns) == ("sentence", "stars")
    assert capsys.readouterr().err == ""


def test_a_foreign_classifier_never_knew_a_label_column() -> None:
    foreign = Classification(("neg", "pos"), "text", None)
    assert measured_columns(foreign, source(), ("text", "sentiment"), SourceConfig()) == ("text", "sentiment")
