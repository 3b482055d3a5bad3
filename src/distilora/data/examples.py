"""Turns records into examples: the task reads a record, the cleaning step cleans its texts, blank ones are skipped."""

import hashlib
import json
import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from distilora.config.schema import DataConfig
from distilora.data.cleaning import Cleaning
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import Progress, say


@dataclass(frozen=True)
class Example:
    """One example: each of its `texts` becomes a row (or several, where the task cuts it), in order."""

    texts: tuple[str, ...]
    target: Any = None
    place: str = ""  # where it was read, for messages and predictions.parquet
    group: Hashable = None  # value of data.group_column
    digest: str = ""  # `text_digest` of the texts before cleaning
    order: float | None = None  # value of data.order_column
    origin: Any = None  # what a task needs to place its answer in the texts as they were given


@dataclass
class Examples:
    """The examples of one split, and how many blank records were skipped."""

    split: str
    items: list[Example] = field(default_factory=list)
    skipped: int = 0

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.items)

    @property
    def targets(self) -> list[Any]:
        """The targets, in order."""
        return [item.target for item in self.items]

    def take(self, indices: Iterable[int], split: str | None = None) -> "Examples":
        """Return the examples at `indices` as another split."""
        return Examples(split or self.split, [self.items[int(i)] for i in indices])


class Reader(Protocol):
    """The part of a task that reading and dividing examples needs (see `tasks.Task`)."""

    def read(self, values: Mapping[str, Any]) -> Example:
        """Make an example of a record's values."""
        ...

    def cleaned(self, example: Example, cleaning: Cleaning) -> Example:
        """Clean the texts of an example."""
        ...

    def records(
        self, source: Source, split: str, setting: str, notes: list[str], training: DataConfig | None = None
    ) -> Iterator[Record]:
        """Stream a split's records in the form that `read` expects."""
        ...

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> "Reader":
        """Adapt the task to records without a target."""
        ...

    def strata(self, targets: Sequence[Any]) -> list[Hashable]:
        """Give the stratum of each target."""
        ...

    def check(self, examples: Examples) -> None:
        """Raise DataError if nothing can be learnt from the training split."""
        ...

    def remarks(self, parts: Sequence[Examples]) -> list[str]:
        """Warn of what the parts lack."""
        ...


def text_digest(texts: Sequence[str]) -> str:
    """Compute 32 hex digits of the SHA-256 of an example's texts, by which it is recognised in other predictions."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:32]


def read_examples(
    records: Iterable[Record],
    task: Reader,
    cleaning: Cleaning,
    split: str,
    strict: bool,
    columns: DataConfig | None = None,
) -> Examples:
    """Read, clean and check all records of a split; `columns` names those of its groups and order, if it is to be divided.

    A DataError of the task is prefixed with the record's place. A record whose texts are all null or blank is
    skipped and counted, or a DataError under `strict`. Raises DataError if no example is left.
    """
    examples = Examples(split)
    with Progress(f"reading {split}", None, "records") as bar:
        for record in records:
            bar.add(1)
            try:
                example = task.read(record.values)
                group, order = (None, None) if columns is None else group_and_order(record.values, columns)
            except DataError as error:
                raise DataError(f"{record.place}: {error}") from None
            cleaned = task.cleaned(example, cleaning)
            if not any(text.strip() for text in cleaned.texts):
                if strict:
                    raise DataError(
                        f"{record.place}: the text is blank; fill it, or drop --data.strict to skip such rows"
                    )
                examples.skipped += 1
                continue
            digest = text_digest(example.texts)
            examples.items.append(replace(cleaned, place=record.place, group=group, order=order, digest=digest))
    if not examples.items:
        raise DataError(f"{split}: no example with a text; check data.text_column")
    if examples.skipped:
        say(f"{split}: skipped {examples.skipped:,} blank texts")
    return examples


def group_and_order(values: Mapping[str, Any], config: DataConfig) -> tuple[Hashable, float | None]:
    """Read a record's group and its number in the order; None for a column that is not set. Raises DataError for a wrong one."""
    for setting, name in (("data.group_column", config.group_column), ("data.order_column", config.order_column)):
        if name is not None and name not in values:
            raise DataError(
                f"{setting}: no column {name!r} (columns: {', '.join(map(str, values))}); name one of them, or drop it"
            )
    group = values[config.group_column] if config.group_column else None
    if config.order_column is None:
        return group, None
    value = values[config.order_column]
    try:
        order = float(value)
    except (TypeError, ValueError, OverflowError):
        order = math.nan
    if math.isnan(order):
        raise DataError(
            f"data.order_column: {config.order_column!r} holds {value!r}, not a number; name a column of numbers"
        )
    return group, order
