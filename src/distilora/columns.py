"""The columns that a trained classifier is measured on: those of training, unless user or source name others."""

from collections.abc import Iterable

from distilora.config import SourceConfig
from distilora.errors import DataError
from distilora.progress import say
from distilora.sources import Source
from distilora.tasks.classification import LABEL_COLUMNS, TEXT_COLUMNS, Classification, find_column


def measured_columns(
    task: Classification, source: Source, columns: Iterable[str], settings: SourceConfig
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
