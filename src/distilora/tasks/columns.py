"""Finds the columns of text and label: in training by usual names, in other data by the names of training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distilora.config.measuring import SourceConfig
from distilora.config.schema import DataConfig
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.separators import SEPARATORS
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.tasks.text import TextTask

TEXT_COLUMNS = ("text", "review", "review_text", "reviewtext", "sentence", "content", "comment", "document", "body")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "target", "rating", "stars")


def first_record(source: Source, split: str, setting: str) -> Mapping[str, Any]:
    """Return the values of a split's first record. Raises DataError naming the setting if there is none."""
    first = next(iter(source.records(split, setting)), None)
    if first is None:
        raise DataError(f"{setting}: {source.name} {split} has no records; give another")
    return first.values


def measured_columns(
    task: "TextTask", source: Source, columns: Iterable[str], settings: SourceConfig
) -> tuple[str, str]:
    """Find the text column and the label column of labelled data: by the settings, else those of training.

    If the text column of training is missing, one with a usual name replaces it, and a note says so. A label column is not
    replaced by a usual name, since its labels may mean something else: it must be set, or the source itself must declare
    its label names (the Hub's class labels, aclImdb). Only a model without a label column of its own, a foreign
    classifier, takes one with a usual name.

    Raises DataError naming the setting if a column is missing.
    """
    columns = [str(column) for column in columns]
    name = settings.text_column or (task.text_column if task.text_column in columns else None)
    text = find_column(columns, name, TEXT_COLUMNS, "data.text_column")
    if name is None:
        say(f"note: no column {task.text_column!r} as in training: texts are read from {text!r}")
    if settings.label_column or task.label_column in columns:
        name = settings.label_column or task.label_column
        return text, find_column(columns, name, LABEL_COLUMNS, "data.label_column")
    declared = [column for column in columns if column in source.label_names]
    if task.label_column is None:
        label = find_column(columns, None, LABEL_COLUMNS, "data.label_column")
    elif declared:
        label = find_column(declared, None, (*LABEL_COLUMNS, *(name.lower() for name in declared)), "data.label_column")
    else:
        raise DataError(
            f"data.label_column: no column {task.label_column!r}, the label of training (columns: {', '.join(columns)}); "
            "name one with --data.label_column"
        )
    say(f"note: labels are read from column {label!r}")
    return text, label


def check_columns(text: str, label: str) -> None:
    """Raise DataError if text and label are the same column."""
    if text == label:
        raise DataError(
            f"data.label_column: {label!r} is the column of the text; name another with --data.label_column, or the text's "
            "with --data.text_column"
        )


def refuse_label_columns(config: DataConfig, task: str) -> None:
    """Raise ConfigError if `data.label_columns` is given for a task whose target is in one column."""
    if config.label_columns is not None:
        raise ConfigError(
            f"data.label_columns: given, but task {task} has one target a text, in data.label_column; give that"
        )


def find_column(
    columns: Iterable[str], name: str | None, usual_names: Sequence[str], field: str, taken: Sequence[str] = ()
) -> str:
    """Return the column `name`; if that is None, the first of `usual_names` that is a column, in any case, and not `taken`.

    Raises DataError naming `field` and listing the columns if there is none.
    """
    everything = [str(column) for column in columns]
    columns = [column for column in everything if column not in taken]
    lowered = {column.lower().strip(): column for column in reversed(columns)}
    if name in columns:
        return name
    column = None if name else next((lowered[usual] for usual in usual_names if usual in lowered), None)
    if column is None:
        missing = f"no column {name!r}" if name else f"no column called {', '.join(usual_names[:4])} or similar"
        advice = f"name one with --{field}"
        if len(columns) == 1 and any(separator in columns[0] for separator in SEPARATORS):
            setting = "--separator" if field == "text-column" else "--data.separator"
            advice = f"its cells seem to be separated otherwise: give another {setting}, or none to have it found"
        raise DataError(f"{field}: {missing} (columns: {', '.join(everything)}); {advice}")
    return column
