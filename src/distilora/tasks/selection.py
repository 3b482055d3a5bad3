"""Chooses the sentences of a summary by their logits, until there are enough, and avoids repetition.

trigrams    by falling logit; a sentence that shares a trigram with those chosen is passed over (Paulus et al., ICLR 2018)
mmr         next is the sentence of greatest r sigmoid(z) - (1 - r) max over those chosen of the cosine of their words' counts,
            r = 0.7: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998)
none        by falling logit
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distilora.config.schema import Redundancy
from distilora.tasks.metrics.rouge import words_of

RELEVANCE = 0.7


def choose(
    logits: NDArray[np.float32],
    sentences: Sequence[str],
    count: int,
    most_words: int | None = None,
    redundancy: Redundancy = "trigrams",
) -> list[int]:
    """Choose a summary: numbers of its sentences, in order of the text.

    Args:
        logits: of each sentence, [S] or more.
        count: sentences of a summary, unless `most_words` is given: then as many as fit into so many words, one at least.
    """
    words = [words_of(sentence) for sentence in sentences]
    left = np.argsort(-np.asarray(logits[: len(sentences)]), kind="stable").tolist()
    marginal = _Marginal(logits, words) if redundancy == "mmr" else None
    chosen: list[int] = []
    trigrams: set[tuple[str, ...]] = set()
    room = most_words
    while left and (len(chosen) < count if room is None else room > 0):
        number = left.pop(0 if marginal is None else marginal.best(left))
        own = set(zip(words[number], words[number][1:], words[number][2:], strict=False))
        repeats = redundancy == "trigrams" and own & trigrams
        if chosen and (repeats or (room is not None and len(words[number]) > room)):
            continue
        chosen.append(number)
        trigrams |= own
        room = None if room is None else room - len(words[number])
        if marginal is not None:
            marginal.add(number)
    return sorted(chosen)


class _Marginal:
    """Marginal relevance of a document's sentences beside those chosen."""

    def __init__(self, logits: NDArray[np.float32], words: Sequence[Sequence[str]]) -> None:
        self._counts = [Counter(of) for of in words]
        self._relevance = 1 / (1 + np.exp(-np.asarray(logits[: len(words)], np.float64)))
        self._similar = np.zeros(len(words))

    def best(self, candidates: Sequence[int]) -> int:
        """Return which candidate has the greatest marginal relevance; of equal ones the first."""
        values = RELEVANCE * self._relevance - (1 - RELEVANCE) * self._similar
        return int(np.argmax(values[list(candidates)]))

    def add(self, number: int) -> None:
        """Note that a sentence was chosen."""
        self._similar = np.maximum(self._similar, [_cosine(self._counts[number], of) for of in self._counts])


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    shared = sum(count * other[word] for word, count in one.items())
    norms = [np.sqrt(sum(count * count for count in of.values())) for of in (one, other)]
    return float(shared / (norms[0] * norms[1])) if shared else 0.0
