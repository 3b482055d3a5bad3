"""Explains an answer by leaving words out: how much less probable it becomes without each of them.

    weight[i] = p(label | text) - p(label | text without word i)

Works with whatever the predictor runs on; the shortened texts go through the plan like any others.
"""

import re
from typing import NamedTuple

from distilora.errors import DataError
from distilora.predict import Predictor

_WORD = re.compile(r"\S+")


class Weight(NamedTuple):
    """A word, where it stands in the cleaned text (characters, end excluded), and what the answer loses without it."""

    word: str
    start: int
    end: int
    weight: float


def leave_one_word_out(predictor: Predictor, text: str, label: str | None = None) -> list[Weight]:
    """The weight of each word of `text`, cleaned as for prediction, for `label` (None: the one answered), in order.

    Raises DataError if there is no such label, the task has none, or the text has fewer than two words.
    """
    labels = predictor.task.labels
    if not labels:
        raise DataError(f"explain: task {predictor.artifact.task['name']} gives no probability of a label")
    text = predictor.clean(text)
    places = [match.span() for match in _WORD.finditer(text)]
    if len(places) < 2:
        raise DataError("explain: one word cannot be left out of a text of fewer than two; give a longer text")
    answer = predictor(text)
    label = label or answer["label"]
    if label not in labels:
        raise DataError(f"explain: there is no label {label!r}; there are {', '.join(labels)}")
    without = predictor([text[:start] + text[end:] for start, end in places])
    whole = answer[f"p_{label}"]
    return [
        Weight(text[start:end], start, end, whole - shorter[f"p_{label}"])
        for (start, end), shorter in zip(places, without, strict=True)
    ]
