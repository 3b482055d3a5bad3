"""Base of the tasks that read a single text and answer it as a whole; they differ in what the target is."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distilora.config.measuring import SourceConfig
from distilora.data.examples import Example
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.tasks.base import States, Task
from distilora.tasks.columns import TEXT_COLUMNS, check_columns, find_column, first_record, measured_columns

if TYPE_CHECKING:
    from torch import Tensor

    from distilora.batching.rows import Rows


class TextTask(Task):
    """Task of one text column and one column of the target; `settings` has both, under their own names."""

    text_column: str

    @property
    def phrase(self) -> str:
        """The task's name alone."""
        return self.name

    def with_columns(self, text: str, label: str | None) -> Self:
        """Return the task for other columns."""
        return type(self)(**{**self.settings, "text_column": text, "label_column": label})

    def text_in(self, values: Mapping[str, Any]) -> str:
        """Return a record's text, '' where it is missing. Raises DataError without the column, or if it holds no text."""
        if self.text_column not in values:
            raise DataError(
                f"data.text_column: no column {self.text_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        text = values[self.text_column]
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"data.text_column: {self.text_column!r} holds {type(text).__name__}, not text; name another"
            )
        return text or ""

    def value_in(self, values: Mapping[str, Any]) -> Any:
        """Return a record's target as it is written. Raises DataError without the column."""
        if self.label_column is None or self.label_column not in values:
            raise DataError(
                f"data.label_column: no column {self.label_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return values[self.label_column]

    @abstractmethod
    def target(self, value: Any) -> Any:
        """Read the target as it is written in a record. Raises DataError if it is not valid."""

    def read(self, values: Mapping[str, Any]) -> Example:
        """Read the text and its target; that is None if the task has no column of it."""
        text = self.text_in(values)
        return Example((text,)) if self.label_column is None else Example((text,), self.target(self.value_in(values)))

    def read_text(self, text: str) -> Example:
        """Read a single text, without a target."""
        return Example((text,))

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Adapt the task to the text and label columns of other data (see `measured_columns`)."""
        first = first_record(source, split, "data.split")
        text, label = measured_columns(self, source, first, columns)
        check_columns(text, label)
        for content, trained, current in (("Texts", self.text_column, text), ("Labels", self.label_column, label)):
            if trained is not None and trained != current:
                notes.append(f"{content} are read from column {current!r}; in training it was {trained!r}.")
        task = self.with_columns(text, label)
        return task, task.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> Task:
        """Adapt the task to `text_column`, else the column of training, else one with a usual name, and to no target."""
        name = text_column or (self.text_column if self.text_column in columns else None)
        return self.with_columns(find_column(columns, name, TEXT_COLUMNS, "text-column"), None)

    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Compute the outputs, [G, ...], from the pooled state of each example's first row."""
        first = np.flatnonzero(rows.row == 0)
        pooled = states.pooled()
        return self.finish(states.head(pooled if len(first) == len(rows) else pooled[first]))
