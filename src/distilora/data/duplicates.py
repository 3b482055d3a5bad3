"""Finds exact and near copies of texts, so that a text and its copy never straddle two splits.

A text is the set of its 5-word shingles (of lower-cased words, so that mark-up and punctuation do not count; a text of
nothing else is its exact key). Two texts are near copies when the Jaccard similarity of their sets, |A n B| / |A u B|,
is at least `threshold`. Candidates share one of their 16 smallest shingle hashes (bottom-k sketch: Cohen & Kaplan, PODC
2007); a pair of similarity J is missed with probability about (1 - J)^16, 1.5e-5 at J = 0.5, and every candidate is then
checked on the whole sets.
"""

import hashlib
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from distilora.progress import track

SHINGLE = 5  # words
SKETCH = 16  # smallest hashes kept per text
CROWD = 50  # texts sharing one hash beyond which it is boilerplate and proposes only neighbours as candidates
_WORD = re.compile(r"\w+")


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        value = self[word] = zlib.crc32(word.encode())
        return value


def shingles(texts: Sequence[str], label: str = "near-duplicate search") -> list[NDArray[np.uint64]]:
    """Compute the sorted distinct hashes of each text's 5-word shingles; a shorter text has one hash of all its words.

    A text without words ("!!!", emoji) has the hash of its exact key alone.
    """
    words = _WordHashes()
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    sets = []
    for text in track(texts, label, unit="texts"):
        hashes = np.fromiter((words[w] for w in _WORD.findall(text.lower())), np.uint64)
        if not len(hashes):
            sets.append(fingerprints([text]))
            continue
        width = min(SHINGLE, len(hashes))
        count = len(hashes) - width + 1
        rolling = np.full(count, len(hashes) if width < SHINGLE else 0, np.uint64)
        for i in range(width):
            rolling = rolling * multiplier + hashes[i : i + count]
        rolling ^= rolling >> np.uint64(30)  # splitmix64's finaliser: low hashes must be a random sample
        rolling *= np.uint64(0xBF58476D1CE4E5B9)
        rolling ^= rolling >> np.uint64(27)
        sets.append(np.unique(rolling))
    return sets


def similarity(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Compute the Jaccard similarity of two sets of hashes."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


def near_copies(sets: Sequence[NDArray[np.uint64]], threshold: float = 0.5) -> NDArray[np.int64]:
    """Find pairs (i < j) of similar texts, [P, 2]. A chain of copies is connected, though not by all its pairs."""
    sketch, owner = _sketches(sets)
    if not len(owner):
        return np.empty((0, 2), np.int64)
    edges = np.flatnonzero(np.diff(sketch)) + 1
    candidates: set[tuple[int, int]] = set()
    for members in np.split(owner, edges):
        if 1 < len(members) <= CROWD:
            candidates.update((int(a), int(b)) for n, a in enumerate(members) for b in members[n + 1 :])
        elif len(members) > CROWD:
            candidates.update((int(a), int(b)) for a, b in pairwise(members))
    pairs = [pair for pair in sorted(candidates) if similarity(sets[pair[0]], sets[pair[1]]) >= threshold]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def near_matches(
    sets: Sequence[NDArray[np.uint64]], others: Sequence[NDArray[np.uint64]], threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Mark the texts, [N], that have a near copy among `others`; of a crowd among these the first CROWD are candidates."""
    sketch, owner = _sketches(others)
    matched = np.zeros(len(sets), bool)
    for i, hashes in enumerate(sets):
        first = np.searchsorted(sketch, hashes[:SKETCH])
        last = np.minimum(np.searchsorted(sketch, hashes[:SKETCH], "right"), first + CROWD)
        candidates = {int(j) for start, end in zip(first, last, strict=True) for j in owner[start:end]}
        matched[i] = any(similarity(hashes, others[j]) >= threshold for j in sorted(candidates))
    return matched


def _sketches(sets: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Collect the texts' smallest hashes, sorted, [K], and the text that each belongs to, [K], ascending where hashes are equal."""
    owner = np.repeat(np.arange(len(sets)), [min(len(s), SKETCH) for s in sets])
    sketch = np.concatenate([np.empty(0, np.uint64), *(s[:SKETCH] for s in sets)])
    order = np.lexsort((owner, sketch))
    return sketch[order], owner[order]


def clusters(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the connected components of `count` texts joined by `pairs`: the smallest member of each text's, [count]."""
    parent = np.arange(count)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for a, b in pairs:
        first, second = sorted((root(int(a)), root(int(b))))
        parent[second] = first
    return np.asarray([root(i) for i in range(count)], np.int64)


def fingerprints(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Hash the texts' exact keys to 64 bits, [N]: enough to recognise a text, not to read it."""
    digests = (hashlib.blake2b(exact_key(text).encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)


def exact_key(text: str) -> str:
    """Fold case and white space of a text: exact copies are texts with the same key."""
    return " ".join(text.lower().split())
