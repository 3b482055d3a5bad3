"""Turns a text into the set of its n-grams: 1 to 3 consecutive words or marks of a lower-cased text, each a 64-bit key.

    key of one word      first 8 bytes of BLAKE2b of the word
    key of n words       key of the first n - 1 words * M + key of the last, mixed by n (mod 2^64)

Keys are the same on every machine, so that a model stores keys instead of strings. Of V n-grams two share a key with
probability V^2 / 2^65: 3e-8 for a million. Order counts, and only presence: an n-gram that occurs twice is in the set once.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 3  # words of an n-gram
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[!?.,;:()\"-]")  # a word, with what follows its apostrophe; or a mark
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
MOST_CACHED = 1_000_000  # words whose keys are remembered, about 150 MB

Keys = NDArray[np.uint64]


class _WordKeys(dict[str, int]):
    """Cache of the keys of words; emptied when it is full, as a stream of texts has no end of new words."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MOST_CACHED:
            self.clear()
        value = self[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return value


_word_keys = _WordKeys()


class Ngram(NamedTuple):
    """Occurrence of an n-gram: its key and its span in the text, in characters, end excluded."""

    key: int
    start: int
    end: int


def ngram_keys(text: str, longest: int = LONGEST) -> Keys:
    """Compute the sorted distinct keys of a text's n-grams of 1 to `longest` words, [K]; empty for a text without any."""
    return np.unique(np.concatenate(list(_by_length(_TOKEN.findall(_lower(text)), longest))))


def ngrams(text: str, longest: int = LONGEST) -> list[Ngram]:
    """List all occurrences of the n-grams of a text, shorter ones first."""
    matches = list(_TOKEN.finditer(_lower(text)))
    spans = [match.span() for match in matches]
    return [
        Ngram(int(key), spans[first][0], spans[first + length][1])
        for length, keys in enumerate(_by_length([match[0] for match in matches], longest))
        for first, key in enumerate(keys)
    ]


def _lower(text: str) -> str:
    """Lower a text's case, and leave a letter as it is that would become two: spans stay those of the text."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(letter if len(letter.lower()) > 1 else letter.lower() for letter in text)


def stacked_keys(texts: Iterable[str], longest: int = LONGEST) -> tuple[Keys, NDArray[np.int64]]:
    """Compute the keys of all texts, one text's after the other, [sum of K], and where each begins and ends, [N + 1]."""
    keys = [ngram_keys(text, longest) for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(k) for k in keys], dtype=np.int64)])
    return np.concatenate([np.empty(0, np.uint64), *keys]), offsets


def _by_length(words: list[str], longest: int) -> Iterator[Keys]:
    """Yield the keys of the n-grams of 1, 2, ... `longest` words, each [len(words) - n + 1] or empty."""
    single = np.fromiter((_word_keys[word] for word in words), np.uint64, len(words))
    chain = single
    yield single
    for length in range(2, longest + 1):
        chain = chain[:-1] * _MULTIPLIER + single[length - 1 :]  # unmixed, so that the next length goes on from it
        yield _mixed(chain + np.uint64(length))


def _mixed(keys: Keys) -> Keys:
    """Mix the bits of keys (finaliser of splitmix64, Steele et al. 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
