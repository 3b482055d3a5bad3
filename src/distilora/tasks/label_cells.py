"""Reads cells that say which of several labels a text has: a list of names, names with separators, or 0 and 1."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from distilora.errors import DataError
from distilora.tasks.labels import label_name

_SEPARATOR = re.compile(r"\s*[,;|]\s*")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")


def names_in(value: Any) -> list[str]:
    """List the names in a cell: a list, one in JSON, or names with separators; [] for a blank one. Raises DataError for others."""
    if value is None or value != value:
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"data.label_column: {value!r:.60} is no list in JSON; correct it") from None
    if isinstance(value, str):
        return [name for name in _SEPARATOR.split(value.strip()) if name]
    if isinstance(value, Mapping | bytes):
        raise DataError(f"data.label_column: labels are {value!r:.60}, a {type(value).__name__}; a list is wanted")
    items = list(value) if isinstance(value, Iterable) else [value]
    for item in items:
        if item is None or isinstance(item, list | Mapping):
            raise DataError(f"data.label_column: a list of labels holds {item!r:.60}; drop it")
    return [name for item in items if (name := label_name(item).strip())]


def marked(values: Mapping[str, Any], column: str) -> bool:
    """Read a column of 0 and 1. Raises DataError for anything else."""
    if column not in values:
        raise DataError(
            f"data.label_columns: no column {column!r} (columns: {', '.join(map(str, values))}); name others"
        )
    value = values[column]
    word = "" if value is None or value != value else str(value).strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise DataError(f"data.label_columns: {column!r} holds {value!r:.60}, 0 or 1 wanted; correct it")
