"""Base of the tasks that read long documents whole, and learn from a column of texts about each: answers, or summaries."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from distilora.config.measuring import SourceConfig
from distilora.config.schema import DataConfig
from distilora.data.examples import Example
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks.base import Task
from distilora.tasks.columns import find_column, first_record, refuse_label_columns


class DocumentTask(Task):
    """Task of a document column and a target column; `settings` has both, as `text_column` and `label_column`."""

    text_column: str
    document_columns: ClassVar[tuple[str, ...]]
    """Usual names of the column of documents."""
    target_columns: ClassVar[tuple[str, ...]]
    """Usual names of the column of targets."""
    answers_with: ClassVar[str]
    """What answers are, as in 'answers with spans'; for errors."""
    in_windows: ClassVar[bool] = True
    """Whether a document longer than the encoder is read in windows, so that nothing of it is cut off."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Keywords of the constructor."""

    def with_settings(self, **settings: Any) -> Self:
        """Return the task with other settings."""
        return type(self)(**{**self.settings, **settings})

    @classmethod
    def other_columns(cls, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, str]:
        """Find the columns that are read besides document and target, by their settings; `known` are those of training.

        Raises DataError for a column that is missing.
        """
        return {}

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns of the training split. Raises DataError or ConfigError naming the field at fault."""
        refuse_label_columns(config, cls.name)
        if cls.in_windows and config.truncation_side != "right":
            raise ConfigError(
                f"data.truncation_side: {config.truncation_side} given, but task {cls.name} reads long documents in windows and "
                "cuts nothing; drop it"
            )
        if config.labels is not None:
            raise ConfigError(f"data.labels: given, but task {cls.name} answers with {cls.answers_with}; drop it")
        names = list(map(str, first_record(source, config.train_split, "data.train_split")))
        others = cls.other_columns(names, {})
        taken = list(others.values())
        text = find_column(names, config.text_column, cls.document_columns, "data.text_column", taken)
        label = find_column(names, config.label_column, cls.target_columns, "data.label_column", [*taken, text])
        beside = "".join(f", {setting.removesuffix('_column')} from {name!r}" for setting, name in others.items())
        say(f"data: document from column {text!r}{beside}, target from {label!r}")
        return cls(**{"text_column": text, "label_column": label, **others})

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Adapt the task to the columns of other data with targets."""
        names = list(map(str, first_record(source, split, "data.split")))
        others = self.other_columns(names, self.settings)
        known = self.text_column if self.text_column in names else None
        text = find_column(names, columns.text_column or known, self.document_columns, "data.text_column")
        known = self.label_column if self.label_column in names else None
        label = find_column(names, columns.label_column or known, self.target_columns, "data.label_column")
        task = self.with_settings(text_column=text, label_column=label, **others)
        return task, task.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> Task:
        """Adapt the task to documents without targets."""
        names = list(map(str, columns))
        others = self.other_columns(names, self.settings)
        known = text_column or (self.text_column if self.text_column in names else None)
        text = find_column(names, known, self.document_columns, "text-column")
        return self.with_settings(text_column=text, label_column=None, **others)

    @abstractmethod
    def document(self, values: Mapping[str, Any]) -> Example:
        """Read the document, in `text_column`, without its target. Raises DataError for an invalid value."""

    @abstractmethod
    def target(self, value: Any, document: Example) -> Any:
        """Read the target as it is written in a record. Raises DataError if it is not valid."""

    def read(self, values: Mapping[str, Any]) -> Example:
        """Read a document and its target; that is None if the task has no column of it. Raises DataError for invalid values."""
        if self.text_column not in values:
            raise DataError(
                f"data.text_column: no column {self.text_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        document = self.document(values)
        if self.label_column is None:
            return document
        if self.label_column not in values:
            raise DataError(
                f"data.label_column: no column {self.label_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return replace(document, target=self.target(values[self.label_column], document))
