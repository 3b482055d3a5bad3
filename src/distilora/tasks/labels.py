"""Names classes: what a value of a label column is called, and the order in which names are kept.

A name is the value as it is written. Numbers that are equal are one class: 1 beside 1.0 is called 1.
"""

import json
import numbers
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.tasks.scales import graded

MOST_CLASSES_OF_FEW = 20  # classes of which more than half may have one example
_WHOLE = re.compile(r"\s*(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?\s*")  # not 007, which is a code
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_DIGITS = re.compile(r"([0-9]{1,18})")


def label_name(value: Any) -> str:
    """The value as it is written. Raises DataError for a list and for what else is neither word nor number."""
    if isinstance(value, list | tuple | set | dict | bytes):
        raise DataError(
            f"data.label_column: a label is {value!r:.60}, a {type(value).__name__}; one word or number for each text is "
            "wanted: keep one of them, or name another column"
        )
    return str(value)


def whole_number(name: str) -> int | None:
    """The whole number that a name is, however it is written (1, 1.0); else None."""
    found = _WHOLE.fullmatch(name)
    return int(found[1]) if found else None


def names_in(records: Iterable[Record], column: str) -> dict[str, str]:
    """The names in a label column and where each stands first.

    Raises DataError naming the row if a label is blank or of no use, or if booleans stand beside numbers, and if nearly every
    row has a label of its own.
    """
    places: dict[str, str] = {}
    boolean = number = ""
    rows = 0
    for record in records:
        rows += 1
        value = record.values.get(column)
        if value is None or value != value or not str(value).strip():
            raise DataError(f"{record.place}: data.label_column: {column!r} is blank; fill it, or drop the row")
        try:
            name = label_name(value)
        except DataError as error:
            raise DataError(f"{record.place}: {error}") from None
        if isinstance(value, bool):
            boolean = boolean or record.place
        elif isinstance(value, numbers.Number):
            number = number or record.place
        if boolean and number:
            before, kind = (number, "a number") if isinstance(value, bool) else (boolean, "true or false")
            raise DataError(
                f"{record.place}: data.label_column: {column!r} holds {value!r}, but {kind} in {before}; write all labels in "
                "one way"
            )
        places.setdefault(name, record.place)
    if len(places) > MOST_CLASSES_OF_FEW and 2 * len(places) > rows:
        raise DataError(
            f"data.label_column: {column!r} holds {len(places):,} different values in {rows:,} rows; classes are wanted: sort "
            "numbers into ranges, or name another column"
        )
    return places


def order_labels(
    places: Mapping[str, str], source_names: Sequence[str] | None, given: Sequence[str | int] | None
) -> tuple[str, ...]:
    """Label names in the order they keep for ever: those given, else the source's, else the names found, sorted.

    Numbers sort by value, and so do numbers inside names (2 stars before 10 stars); everything else as text.

    Args:
        places: the names found in the data, and where; not looked at where the source has names of its own.

    Raises DataError if fewer than two classes are found, if the number of names given does not fit the source's, or if a
    label of the data is not among those given.
    """
    if given is not None and source_names is not None and len(given) != len(source_names):
        raise DataError(f"data.labels: {len(given)} given, but the source has {', '.join(source_names)}")
    if given is not None:
        return tuple(map(str, given))
    if source_names is not None:
        return tuple(source_names)
    spellings: dict[str | int, list[str]] = {}
    for name in places:
        number = whole_number(name)
        spellings.setdefault(name if number is None else number, []).append(name)
    names = [same[0] if len(same) == 1 else str(key) for key, same in spellings.items()]
    if len(names) < 2:
        raise DataError(f"data.label_column: only the class {', '.join(names)!r} found; two or more are needed")
    return tuple(sorted(names, key=_natural))


def order_note(labels: Sequence[str]) -> str:
    """A question for the order of labels that look graded and do not stand in that order; empty for all others."""
    order = graded(labels)
    if order is None or order == tuple(labels):
        return ""
    return (
        f"the labels look graded, but are kept in alphabetical order ({', '.join(labels)}); for their own give "
        f"--data.labels {shlex.quote(json.dumps(order, ensure_ascii=False))}"
    )


def _natural(name: str) -> tuple[int, float, list[str | int], str]:
    """The place of a name: numbers first, by value; then text, the numbers in it by value."""
    if _DECIMAL.fullmatch(name.strip()):
        return 0, float(name), [], name
    chunks = _DIGITS.split(name)  # text at even places, digits at odd ones
    return 1, 0.0, [int(chunk) if i % 2 else chunk for i, chunk in enumerate(chunks)], name
