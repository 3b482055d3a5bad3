"""Recognises the texts of a caller: a list, a table's column, an array, an iterator; some values may be missing.

A sequence has a length and an order, so all of it can be checked before anything is computed; any other iterable is a
stream.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distilora.errors import DataError


def is_sequence(texts: Any) -> bool:
    """Tell a sequence of texts (a list, a pandas Series, a NumPy array) from a stream.

    Raises DataError for what holds no texts: bytes, a mapping, a table, a number.
    """
    kind = type(texts).__name__
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"texts: {kind} given, a text or several wanted")
    if getattr(texts, "ndim", 1) != 1:
        raise DataError(f"texts: {kind} of {texts.ndim} dimensions given, one column of texts wanted")  # type: ignore[attr-defined]
    return isinstance(texts, Sequence) or (hasattr(texts, "__len__") and hasattr(texts, "__getitem__"))


def is_missing(value: Any) -> bool:
    """Tell whether a value is missing: None, NaN, or pandas' NA or NaT."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    pandas = sys.modules.get("pandas")  # if it is not imported, no value can be pandas'
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
