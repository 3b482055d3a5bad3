"""Finds the columns of text and label: by name in training; in other data those of training, unless told otherwise."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from distilora.config.schema import SourceConfig
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.tasks.classification import Classification

TEXT_COLUMNS = ("text", "review", "review_text", "reviewtext", "sentence", "content", "comment", "document", "body")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "target", "rating", "stars")


def measured_columns(
    task: "Classification", source: Source, columns: Iterable[str], settings: SourceConfig
) -> tuple[str, str]:
    """Find the text column and the label column.

    Another text column than that of training is found by its name, which is said. Another label column is not: it may
    hold anything. It must be given, or be one whose label names the source itself declares (the Hub's class labels,
    aclImdb); a model that never knew a label column (a foreign classifier) takes one by its name.

    Raises DataError naming the setting if a column is not there.
    """
    columns = [str(column) for column in columns]
    text = settings.text_column or (task.text_column if task.text_column in columns else None)
    found_text = find_column(columns, text, TEXT_COLUMNS, "data.text_column")
    if text is None:
        say(f"note: no column {task.text_column!r} as in training: texts are read from {found_text!r}")
    if settings.label_column or task.label_column in columns:
        label = settings.label_column or task.label_column
        return found_text, find_column(columns, label, LABEL_COLUMNS, "data.label_column")
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
    return found_text, label


def check_columns(text: str, label: str) -> None:
    """Raises DataError if one column is both the text and its label."""
    if text == label:
        raise DataError(
            f"data.label_column: {label!r} is the column of the text; name another with --data.label_column, or the text's "
            "with --data.text_column"
        )


def find_column(columns: Iterable[str], given: str | None, names: Sequence[str], field: str) -> str:
    """The column given, else the first whose name (in lower case) is in `names`, in their order.

    Raises DataError naming `field` and listing the columns if there is none.
    """
    columns = [str(column) for column in columns]
    lowered = {column.lower().strip(): column for column in reversed(columns)}
    found = (
        given if given in columns else next((lowered[n] for n in names if n in lowered), None) if not given else None
    )
    if found is None:
        missing = f"no column {given!r}" if given else f"no column called {', '.join(names[:4])} or alike"
        raise DataError(f"{field}: {missing} (columns: {', '.join(columns)}); name one with --{field}")
    return found
