"""Answers as spans of a context: read from records, found among the tokens, and the likeliest one by its logits.

    span of greatest s_i + e_j, i <= j < i + longest, in one window
    P = exp(s_i + e_j) / (S E)      S = exp(s_0) + sum over the context's tokens of all windows of exp(s)      E alike

s_0 and e_0, of no answer, are the least logits of the windows' first tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.tasks.windows import Encoded

STARTS = 20  # starts per window of which the best ends are searched


class Truth(NamedTuple):
    """A true answer: its text, and its span in the context as it is read."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Goal:
    """Target of an example: its true answers, and where the tokens of all its windows stand in the context."""

    truth: tuple[str, ...]
    encoded: Encoded = field(repr=False)
    context: str = field(repr=False)
    starts: tuple[int, ...]  # tokens that start a true answer
    ends: tuple[int, ...]


class Best(NamedTuple):
    """Best span of a context, in its characters, with its score and that of no answer, and their shares of the probability."""

    start: int
    end: int
    score: float
    nothing: float
    p: float
    p_nothing: float

    @property
    def margin(self) -> float:
        """What no answer scores more than the best span."""
        return self.nothing - self.score


def read_truths(value: Any, context: str, column: str) -> tuple[Truth, ...]:
    """Read the true answers of a question, none among them.

    Args:
        value: SQuAD's {text: [...], answer_start: [...]}, or a list of {text, answer_start} or of texts, all of these also as JSON,
            or a single text. A text without its start must stand in the context once.

    Raises DataError for anything else, and for an answer that the context does not hold where it should.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(
                f"data.label_column: {column!r} holds {value!r:.60}, which is not JSON; correct it"
            ) from None
    if value is None or value != value:
        return ()
    try:
        if isinstance(value, Mapping):
            pairs = list(zip(value["text"], value["answer_start"], strict=True))
        elif isinstance(value, str):
            pairs = [(value, None)]
        else:
            pairs = [(of, None) if isinstance(of, str) else (of["text"], of["answer_start"]) for of in value]
        answers = [(str(text), None if start is None else int(start)) for text, start in pairs]
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"data.label_column: {column!r} holds {value!r:.60}; a text, or lists `text` and `answer_start` of equal length, "
            "are wanted"
        ) from None
    return tuple(_placed(text, start, context) for text, start in answers if text.strip())


def _placed(text: str, start: int | None, context: str) -> Truth:
    """Return an answer where it stands: at its offset, else where the context holds it once. Raises DataError elsewhere."""
    if start is None or start < 0 or context[start : start + len(text)] != text:
        found = context.find(text)
        if found < 0 or context.find(text, found + 1) >= 0:
            where = "nowhere" if found < 0 else "in several places"
            if start is None:
                advice = "correct it" if found < 0 else "say where it starts, as SQuAD's answer_start"
                problem = f"stands {where} in the context, whose tags and entities count; {advice}"
            else:
                problem = f"does not stand at character {start} of the context, and {where} else in it; correct it"
            raise DataError(f"data.label_column: the answer {text!r:.60} {problem}")
        start = found
    return Truth(text, start, start + len(text))


def goal_of(example: Example, encoded: Encoded) -> Goal:
    """Find the tokens that start and end the true answers of an example, in every window that holds one whole."""
    starts, ends = set(), set()
    for truth in example.target:
        touching = encoded.inside & (encoded.spans[:, 1] > truth.start) & (encoded.spans[:, 0] < truth.end)
        for window in np.unique(encoded.window[touching]):
            places = np.flatnonzero(touching & (encoded.window == window))
            whole = encoded.spans[places[0], 0] <= truth.start and encoded.spans[places[-1], 1] >= truth.end
            if whole:  # a window that cuts an answer does not hold it
                starts.add(int(places[0]))
                ends.add(int(places[-1]))
    return Goal(
        tuple(t.text for t in example.target), encoded, example.texts[1], tuple(sorted(starts)), tuple(sorted(ends))
    )


def best_span(logits: NDArray[np.float32], encoded: Encoded, longest: int) -> Best:
    """Find the best span of a context, of at most `longest` tokens in one window; an empty one at 0 where there is none.

    Args:
        logits: of start and end, of each token of all windows, [T or more, 2].
    """
    z = np.asarray(logits[: len(encoded.window)], np.float64)
    inside, firsts = encoded.inside, encoded.firsts
    nothing = z[firsts].min(axis=0)
    found = (-np.inf, 0, 0)
    for first, end in zip(firsts, [*firsts[1:], len(z)], strict=True):
        places = first + np.flatnonzero(inside[first:end])
        if not len(places):
            continue
        starts, ends = z[places, 0], z[places, 1]
        for place in np.argsort(-starts, kind="stable")[:STARTS].tolist():
            last = place + int(ends[place : place + longest].argmax())
            if starts[place] + ends[last] > found[0]:
                found = (starts[place] + ends[last], int(places[place]), int(places[last]))
    score, start, last = found
    if score == -np.inf:
        return Best(0, 0, float(nothing.sum()) - 1e4, float(nothing.sum()), 0.0, 1.0)
    everything = np.concatenate([nothing[None], z[inside]])
    top = everything.max(axis=0)
    total = float((np.log(np.exp(everything - top).sum(axis=0)) + top).sum())
    return Best(
        int(encoded.spans[start, 0]), int(encoded.spans[last, 1]), float(score), float(nothing.sum()),
        float(np.exp(score - total)), float(np.exp(nothing.sum() - total)),
    )  # fmt: skip
