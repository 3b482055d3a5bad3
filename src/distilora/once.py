"""Texts of a stream, each computed once: what is known of the latest of them, by their SHA-256."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.examples import Example

REMEMBERED = 65_536  # texts of a stream whose outputs are kept, in case they occur again


class Known:
    """What is known of a text: its outputs before the temperature, [...], and whether it was cut."""

    __slots__ = ("outputs", "truncated")
    outputs: NDArray[np.float32]
    truncated: bool


class Once:
    """Texts of a stream, the latest REMEMBERED of them, so that none is computed twice."""

    def __init__(self) -> None:
        self._texts: OrderedDict[bytes, Known] = OrderedDict()

    def look_up(self, examples: Sequence[Example]) -> tuple[list[Known], list[Known], list[Example]]:
        """What is known of each example; of these, what is new and has to be computed, and its examples."""
        known, new, fresh = [], [], []
        for example in examples:
            key = hashlib.sha256("\0".join(example.texts).encode()).digest()
            text = self._texts.get(key)
            if text is None:
                text = self._texts[key] = Known()
                new.append(text)
                fresh.append(example)
                if len(self._texts) > REMEMBERED:
                    self._texts.popitem(last=False)
            known.append(text)
        return known, new, fresh
