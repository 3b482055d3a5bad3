"""Matches the labels of other data to a model's classes: by name, else by place, and that is said aloud."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.tasks.classification import Classification


def matched(
    records: Iterable[Record], task: "Classification", names: Sequence[str] | None, source: str, notes: list[str]
) -> Iterator[Record]:
    """Records of a task that has a label column, with the source's label names in place of its numbers where they are the model's.

    Args:
        names: those the source declares behind whole-number labels, in order; None where it declares none.
        source: its name, for messages.
        notes: gets a sentence where labels are matched by their place; without `names`, when the first such label is read.

    Raises DataError if the source declares other names than the model's, and more or fewer of them.
    """
    label = task.label_column
    assert label is not None
    if names is None:
        return _watched(records, task, label, source, notes)
    if set(names) <= set(task.labels):
        return (Record(r.place, {**r.values, label: _named(r.values.get(label), names)}) for r in records)
    if len(names) != len(task.labels):
        raise DataError(
            f"data.label_column: {source} has labels {', '.join(names)}, the model {', '.join(task.labels)}; "
            "give data with the same ones"
        )
    _tell(names, task, source, notes)
    return iter(records)


def _watched(
    records: Iterable[Record], task: "Classification", label: str, source: str, notes: list[str]
) -> Iterator[Record]:
    told = False
    for record in records:
        if not told and task.by_place(record.values.get(label)) is not None:
            told = True
            _tell(range(len(task.labels)), task, source, notes)
        yield record


def _tell(theirs: Iterable[Any], task: "Classification", source: str, notes: list[str]) -> None:
    pairs = ", ".join(f"{one} = {label}" for one, label in zip(theirs, task.labels, strict=True))
    note = f"Labels of {source} are matched by their place: {pairs}."
    say(f"warning: {note}")
    notes.append(note)


def _named(value: Any, names: Sequence[str]) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
