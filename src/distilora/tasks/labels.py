"""Names and orders the classes of a label column.

A class is named after the value as it is written, less white space around it. Equal numbers are one class: 1 beside 1.0 is
called 1. Words that differ in case are two classes.
"""

import json
import numbers
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.tasks.scales import graded_order

MOST_CLASSES_OF_FEW = 20  # classes of which more than half may have one example
_WHOLE = re.compile(r"\s*(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?\s*")  # not 007, which is a code
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_DIGITS = re.compile(r"([0-9]{1,18})")


def label_name(value: Any) -> str:
    """Return the value as it is written. Raises DataError for a list or anything else that is neither word nor number."""
    if isinstance(value, list | tuple | set | dict | bytes):
        raise DataError(
            f"data.label_column: a label is {value!r:.60}, a {type(value).__name__}; one word or number for each text is "
            "needed: keep one of them, or name another column"
        )
    return str(value)


def whole_number(name: str) -> int | None:
    """Parse a name that is a whole number, as 1 or 1.0; return None for any other."""
    match = _WHOLE.fullmatch(name)
    return int(match[1]) if match else None


def collect_names(records: Iterable[Record], column: str) -> dict[str, str]:
    """Collect the names in a label column, each with the place where it first occurs.

    Raises DataError, naming the row, for a blank or invalid label and for booleans mixed with numbers; also if most rows have
    a label of their own.
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
        places.setdefault(name.strip(), record.place)
    if len(places) > MOST_CLASSES_OF_FEW and 2 * len(places) > rows:
        raise DataError(
            f"data.label_column: {column!r} holds {len(places):,} different values in {rows:,} rows, too many for classes; sort "
            "numbers into ranges, or name another column"
        )
    return places


def order_labels(
    places: Mapping[str, str], source_names: Sequence[str] | None, configured: Sequence[str | int] | None
) -> tuple[str, ...]:
    """Return the final order of the labels: `configured`, else the source's, else the names in the data, sorted.

    Numbers sort by value, and so do numbers inside names (2 stars before 10 stars); everything else sorts as text.

    Args:
        places: names in the data, from `collect_names`; ignored if the source has names of its own.
        source_names: names that the source declares, in order.
        configured: the setting `data.labels`.

    Raises DataError for fewer than two classes, or if the number of configured labels is not that of the source.
    """
    if configured is not None and source_names is not None and len(configured) != len(source_names):
        raise DataError(f"data.labels: {len(configured)} given, but the source has {', '.join(source_names)}")
    if configured is not None:
        return tuple(map(str, configured))
    if source_names is not None:
        return tuple(source_names)
    spellings: dict[str | int, list[str]] = {}
    for name in places:
        number = whole_number(name)
        spellings.setdefault(name if number is None else number, []).append(name)
    names = [variants[0] if len(variants) == 1 else str(key) for key, variants in spellings.items()]
    if len(names) < 2:
        raise DataError(f"data.label_column: only the class {', '.join(names)!r} found; two or more are needed")
    return tuple(sorted(names, key=_natural))


def order_note(labels: Sequence[str]) -> str:
    """Suggest the graded order for labels that look graded but are ordered otherwise; return '' for any others."""
    order = graded_order(labels)
    if order is None or order == tuple(labels):
        return ""
    return (
        f"the labels look graded, but are kept in alphabetical order ({', '.join(labels)}); to keep them graded give "
        f"--data.labels {shlex.quote(json.dumps(order, ensure_ascii=False))}"
    )


def case_warning(labels: Iterable[str]) -> str:
    """Warn of labels that differ in case alone; return '' if there are none."""
    spellings: dict[str, list[str]] = {}
    for label in labels:
        spellings.setdefault(label.casefold(), []).append(label)
    alike = [" and ".join(map(repr, variants)) for variants in spellings.values() if len(variants) > 1]
    if not alike:
        return ""
    return f"labels differ in case alone and are classes of their own: {'; '.join(alike)}; write in one way what means the same"


def _natural(name: str) -> tuple[int, float, list[str | int], str]:
    """Return the sort key of a name: numbers first, by value; then text, the numbers in it by value."""
    if _DECIMAL.fullmatch(name.strip()):
        return 0, float(name), [], name
    chunks = _DIGITS.split(name)  # text at even positions, digits at odd ones
    return 1, 0.0, [int(chunk) if i % 2 else chunk for i, chunk in enumerate(chunks)], name
