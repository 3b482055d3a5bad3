"""ROUGE of summaries against references, by the rouge-score package; and the greedy choice of sentences that it is learnt from.

rouge1, rouge2, rougeL and rougeLsum are F-measures with stemming; of several references all of them are of the one with the best
ROUGE-1, as SciTLDR's authors do (Cachola et al., Findings of EMNLP 2020). Newlines separate sentences for rougeLsum.

The greedy oracle (Nallapati et al. 2017; Liu 2019) adds, one by one, the sentence that raises ROUGE-1 + ROUGE-2 of all that are
chosen most, counted over the sets of their words and pairs, and stops where none does.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from distilora.errors import MissingExtra

MEASURES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_WORD = re.compile(r"[a-z0-9]+")


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtra("rouge-score", "summarization") from None
    return RougeScorer(MEASURES, use_stemmer=True)


def rouge(summary: str, references: Sequence[str]) -> dict[str, float]:
    """Compute the four measures of a summary against its best reference. Raises MissingExtra without rouge-score."""
    return dict(_rouge(summary, tuple(references)))


@lru_cache(maxsize=10_000)  # a split is measured whole and in slices
def _rouge(summary: str, references: tuple[str, ...]) -> dict[str, float]:
    scores = [_scorer().score(reference, summary) for reference in references]
    best = max(scores, key=lambda score: score["rouge1"].fmeasure)
    return {name: float(best[name].fmeasure) for name in MEASURES}


def oracle(sentences: Sequence[str], reference: str, most: int = 5) -> list[int]:
    """Choose the sentences that together resemble the reference most, in order of the text; [] if none shares a word with it."""
    goals = [set(of) for of in _grams(reference)]
    grams = [[set(of) for of in _grams(sentence)] for sentence in sentences]
    chosen: list[int] = []
    best, together = 0.0, [set[Any](), set[Any]()]
    while len(chosen) < most:
        candidates = [
            (sum(_f1(together[n] | of[n], goals[n]) for n in range(2)), -i)
            for i, of in enumerate(grams)
            if i not in chosen
        ]
        value, negative = max(candidates, default=(0.0, 0))
        if value <= best + 1e-12:
            break
        best = value
        chosen.append(-negative)
        together = [together[n] | grams[-negative][n] for n in range(2)]
    return sorted(chosen)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, as they are compared."""
    return _WORD.findall(text.lower())


def _grams(text: str) -> tuple[list[Any], list[Any]]:
    words = words_of(text)
    return list(words), list(pairwise(words))


def _f1(ours: set[Any], goal: set[Any]) -> float:
    shared = len(ours & goal)
    return 2 * shared / (len(ours) + len(goal)) if shared else 0.0
