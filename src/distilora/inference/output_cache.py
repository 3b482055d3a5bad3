"""Texts of a stream, each computed once: outputs of the latest of them, by the texts' SHA-256, in memory that does not grow.

An 8-way set-associative cache in a few arrays: a text's set follows from its key, and in a full set the text that came first
makes room. As Python objects, 65,536 texts took 25 MB, so that a long table needed more memory than a short one (LOG.md).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example

REMEMBERED = 65_536  # texts of a stream whose outputs are kept, in case they occur again
LARGEST = 16 << 20  # bytes of all their outputs: of many classes, fewer are kept
WAYS = 8


class CacheEntry:
    """What is known of a text: its outputs before the temperature, [...], and whether it was cut."""

    __slots__ = ("outputs", "truncated")
    outputs: NDArray[np.float32]
    truncated: bool


class OutputCache:
    """Texts of a stream, the latest REMEMBERED of them or so, that none is computed twice."""

    def __init__(self) -> None:
        self._coming: dict[bytes, CacheEntry] = {}  # looked up and not computed when they were last seen
        self._keys: NDArray[np.uint64] | None = None  # [sets, WAYS, 2]; zeros where there is none yet
        self._oldest: NDArray[np.int8]  # [sets]
        self._outputs: NDArray[np.float32]  # [sets, WAYS, ...]
        self._truncated: NDArray[np.bool_]  # [sets, WAYS]

    def look_up(self, examples: Sequence[Example]) -> tuple[list[CacheEntry], list[CacheEntry], list[Example]]:
        """What is known of each example; of these, what is new and has to be computed, and its examples."""
        self._keep()
        keys = [hashlib.sha256("\0".join(example.texts).encode()).digest()[:16] for example in examples]
        kept = self._kept(keys)
        known, new, fresh = [], [], []
        for key, text, example in zip(keys, kept, examples, strict=True):
            text = text or self._coming.get(key)
            if text is None:
                text = self._coming[key] = CacheEntry()
                new.append(text)
                fresh.append(example)
            known.append(text)
        return known, new, fresh

    def _kept(self, keys: Sequence[bytes]) -> list[CacheEntry | None]:
        """What the cache holds of each text, copied, for it may soon hold another there."""
        found: list[CacheEntry | None] = [None] * len(keys)
        if self._keys is None or not keys:
            return found
        numbers = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        sets = numbers[:, 0] % np.uint64(len(self._keys))
        same = (self._keys[sets] == numbers[:, None]).all(axis=2)
        for place in np.flatnonzero(same.any(axis=1)).tolist():
            where = sets[place], int(same[place].argmax())
            text = found[place] = CacheEntry()
            text.outputs, text.truncated = self._outputs[where].copy(), bool(self._truncated[where])
        return found

    def _keep(self) -> None:
        """Moves to the cache what was computed meanwhile."""
        computed = {key: text for key, text in self._coming.items() if hasattr(text, "outputs")}
        for key, text in computed.items():
            del self._coming[key]
            if self._keys is None:
                self._allocate(text.outputs)
            assert self._keys is not None
            if text.outputs.shape != self._outputs.shape[2:]:
                continue  # a task's outputs may vary in shape; those are not kept
            number = np.frombuffer(key, np.uint64)
            place = int(number[0]) % len(self._keys)
            way = int(self._oldest[place])
            self._oldest[place] = (way + 1) % WAYS
            self._keys[place, way] = number
            self._outputs[place, way], self._truncated[place, way] = text.outputs, text.truncated

    def _allocate(self, outputs: NDArray[np.float32]) -> None:
        sets = max(1, min(REMEMBERED, LARGEST // max(1, outputs.nbytes)) // WAYS)
        self._keys = np.zeros((sets, WAYS, 2), np.uint64)
        self._oldest = np.zeros(sets, np.int8)
        self._outputs = np.zeros((sets, WAYS, *outputs.shape), np.float32)
        self._truncated = np.zeros((sets, WAYS), np.bool_)
