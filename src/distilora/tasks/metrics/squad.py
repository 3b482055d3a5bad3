"""Compares answers with true ones by the rules of SQuAD's official evaluation (Rajpurkar et al. 2016, 2018).

Answers are compared in lower case, without punctuation, articles and superfluous white space. F1 is that of the words that both
share, counted; of several true answers the best counts. A question without an answer has the true answer "": both figures are
1 for "" and 0 for anything else.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Return an answer as it is compared."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, truth: Sequence[str]) -> float:
    """Return 1 if the answer is one of the true ones, else 0; without true answers, if it is ""."""
    return float(normalised(answer) in {normalised(true) for true in _or_none(truth)})


def f1(answer: str, truth: Sequence[str]) -> float:
    """Return the best F1 of the answer with any of the true ones."""
    return max(_f1(normalised(answer).split(), normalised(true).split()) for true in _or_none(truth))


def _or_none(truth: Sequence[str]) -> Sequence[str]:
    """Return the true answers that hold a word, [""] without any."""
    return [true for true in truth if normalised(true)] or [""]


def _f1(answer: Sequence[str], true: Sequence[str]) -> float:
    if not answer or not true:
        return float(answer == true)
    shared = sum((Counter(answer) & Counter(true)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(answer), shared / len(true)
    return 2 * precision * recall / (precision + recall)
