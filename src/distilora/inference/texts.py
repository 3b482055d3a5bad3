"""Texts as a caller gives them: a list, a column of a table, an array, an iterator; some of them missing.

A sequence knows its length and its order, so that all of it can be checked before anything is computed; anything else that
can be gone through is a stream.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distilora.errors import DataError


def is_sequence(texts: Any) -> bool:
    """Whether these are texts in order whose number is known: a list, a pandas Series, a NumPy array. Else a stream.

    Raises DataError for what is no texts at all: bytes, a mapping, a table, a number.
    """
    kind = type(texts).__name__
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"texts: {kind} given, a text or several wanted")
    if getattr(texts, "ndim", 1) != 1:
        raise DataError(f"texts: {kind} of {texts.ndim} dimensions given, one column of texts wanted")  # type: ignore[attr-defined]
    return isinstance(texts, Sequence) or (hasattr(texts, "__len__") and hasattr(texts, "__getitem__"))


def is_missing(value: Any) -> bool:
    """Whether a value stands for no value: None, NaN, or pandas' NA or NaT."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    pandas = sys.modules.get("pandas")  # who has none of its values has not imported it
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
