"""Caches the outputs of a stream's latest texts by their SHA-256, so that a repeated text is computed once.

An 8-way set-associative cache in a few arrays of fixed size: a text's key determines its set, and a full set evicts its
oldest entry. As Python objects 65,536 texts took 25 MB, so a long table needed more memory than a short one
(LOG.md: Why `score` needed 13% more memory).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example

REMEMBERED = 65_536  # cache entries at most
LARGEST = 16 << 20  # bytes of outputs at most: with many classes there are fewer entries
WAYS = 8


class CacheEntry:
    """Cache entry of a text: its outputs before the temperature, [...], and whether it was truncated; unset until computed."""

    __slots__ = ("outputs", "truncated")
    outputs: NDArray[np.float32]
    truncated: bool


class OutputCache:
    """Cache of the outputs of about the last REMEMBERED texts of a stream."""

    def __init__(self) -> None:
        self._pending: dict[bytes, CacheEntry] = {}  # looked up, but not yet stored in the arrays
        self._keys: NDArray[np.uint64] | None = None  # [sets, WAYS, 2]; zeros where there is no entry
        self._oldest: NDArray[np.int8]  # way to evict next, [sets]
        self._outputs: NDArray[np.float32]  # [sets, WAYS, ...]
        self._truncated: NDArray[np.bool_]  # [sets, WAYS]

    def look_up(self, examples: Sequence[Example]) -> tuple[list[CacheEntry], list[CacheEntry], list[Example]]:
        """Return each example's entry, the new entries among them, which the caller computes, and their examples."""
        self._store()
        keys = [hashlib.sha256("\0".join(example.texts).encode()).digest()[:16] for example in examples]
        entries, missing, missing_examples = [], [], []
        for key, entry, example in zip(keys, self._cached(keys), examples, strict=True):
            entry = entry or self._pending.get(key)
            if entry is None:
                entry = self._pending[key] = CacheEntry()
                missing.append(entry)
                missing_examples.append(example)
            entries.append(entry)
        return entries, missing, missing_examples

    def _cached(self, keys: Sequence[bytes]) -> list[CacheEntry | None]:
        """Return each key's entry, None where there is none; copied, as its place may soon be another entry's."""
        entries: list[CacheEntry | None] = [None] * len(keys)
        if self._keys is None or not keys:
            return entries
        numbers = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        sets = numbers[:, 0] % np.uint64(len(self._keys))
        same = (self._keys[sets] == numbers[:, None]).all(axis=2)
        for i in np.flatnonzero(same.any(axis=1)).tolist():
            place = sets[i], int(same[i].argmax())
            entry = entries[i] = CacheEntry()
            entry.outputs, entry.truncated = self._outputs[place].copy(), bool(self._truncated[place])
        return entries

    def _store(self) -> None:
        """Move the pending entries that have been computed into the arrays."""
        computed = {key: entry for key, entry in self._pending.items() if hasattr(entry, "outputs")}
        for key, entry in computed.items():
            del self._pending[key]
            if self._keys is None:
                self._allocate(entry.outputs)
            assert self._keys is not None
            if entry.outputs.shape != self._outputs.shape[2:]:
                continue  # a task's outputs may vary in shape; those are not cached
            number = np.frombuffer(key, np.uint64)
            row = int(number[0]) % len(self._keys)
            way = int(self._oldest[row])
            self._oldest[row] = (way + 1) % WAYS
            self._keys[row, way] = number
            self._outputs[row, way], self._truncated[row, way] = entry.outputs, entry.truncated

    def _allocate(self, outputs: NDArray[np.float32]) -> None:
        sets = max(1, min(REMEMBERED, LARGEST // max(1, outputs.nbytes)) // WAYS)
        self._keys = np.zeros((sets, WAYS, 2), np.uint64)
        self._oldest = np.zeros(sets, np.int8)
        self._outputs = np.zeros((sets, WAYS, *outputs.shape), np.float32)
        self._truncated = np.zeros((sets, WAYS), np.bool_)
