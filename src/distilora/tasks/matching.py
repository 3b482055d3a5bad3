"""Matches the labels of other data to a model's classes: by name, else by position, with a warning."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.tasks.classification import Classification


def match_labels(
    records: Iterable[Record], task: "Classification", names: Sequence[str] | None, source: str, notes: list[str]
) -> Iterator[Record]:
    """Yield labelled records, with label numbers replaced by the source's label names if those are the model's.

    Args:
        task: a task with a label column.
        names: names that the source declares for whole-number labels, in order; None if it declares none.
        source: the source's name, for messages.
        notes: receives a sentence if labels are matched by position; without `names`, once the first such label is read.

    Raises DataError if the source declares names that differ from the model's in number, too.
    """
    label = task.label_column
    assert label is not None
    if names is None:
        return _with_warning(records, task, label, source, notes)
    if set(names) <= set(task.labels):
        return (Record(r.place, {**r.values, label: _name_of(r.values.get(label), names)}) for r in records)
    if len(names) != len(task.labels):
        raise DataError(
            f"data.label_column: {source} has labels {', '.join(names)}, the model {', '.join(task.labels)}; "
            "give data with the same labels"
        )
    _warn(names, task, source, notes)
    return iter(records)


def _with_warning(
    records: Iterable[Record], task: "Classification", label: str, source: str, notes: list[str]
) -> Iterator[Record]:
    """Yield the records; warn at the first label that is matched by position."""
    warned = False
    for record in records:
        if not warned and task.by_position(record.values.get(label)) is not None:
            warned = True
            _warn(range(len(task.labels)), task, source, notes)
        yield record


def _warn(source_labels: Iterable[Any], task: "Classification", source: str, notes: list[str]) -> None:
    pairs = ", ".join(f"{theirs} = {ours}" for theirs, ours in zip(source_labels, task.labels, strict=True))
    note = f"Labels of {source} are matched by position: {pairs}."
    say(f"warning: {note}")
    notes.append(note)


def _name_of(value: Any, names: Sequence[str]) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
