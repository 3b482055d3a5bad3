"""Encodes a question with a long context as windows of the context that overlap, each beside the question.

    [CLS] question [SEP] context, tokens 0 to n [SEP]
    [CLS] question [SEP] context, tokens n - overlap to 2 n - overlap [SEP]        ...

Nothing of the context is cut off. A question is cut after half the tokens that a window has; the example counts as truncated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.batching.rows import rows_of
from distilora.batching.tokens import Tokenised
from distilora.progress import Progress

BATCH = 256  # examples per call of the tokenizer


@dataclass(frozen=True)
class Encoded:
    """T tokens of an example's windows, in order: their spans in the context, [T, 2], -1 for others, and window numbers, [T]."""

    spans: NDArray[np.int32]
    window: NDArray[np.int32]

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a token is one of the context, [T]."""
        return np.asarray(self.spans[:, 0] >= 0)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """Index of each window's first token, [W]."""
        return np.flatnonzero(np.diff(self.window, prepend=-1))


class Windows:
    """Encoder of questions with contexts, made of a tokenizer that truncates at the length of a window."""

    def __init__(self, tokenizer: Tokenizer, overlap: int) -> None:
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        length = (tokenizer.truncation or {"max_length": 512})["max_length"]
        self._plain.no_padding()
        self._plain.no_truncation()
        self._cutting = Tokenizer.from_str(self._plain.to_str())
        self._longest_question = length // 2
        room = length - self._longest_question - 4  # of the context in a window with the longest question
        self._cutting.enable_truncation(length, stride=max(min(overlap, room - 1), 0), strategy="only_second")

    def encode(self, pairs: Sequence[tuple[str, str]], label: str = "") -> list[list[Any]]:
        """Encode pairs of question and context: for each its windows, as the tokenizer's encodings."""
        encoded: list[list[Any]] = []
        with Progress(label, len(pairs)) as bar:
            for start in range(0, len(pairs), BATCH):
                batch = [(self._short(question), context) for question, context in pairs[start : start + BATCH]]
                encoded += [[first, *first.overflowing] for first in self._cutting.encode_batch(batch)]
                bar.add(len(batch))
        return encoded

    def tokens(self, pairs: Sequence[tuple[str, str]], label: str = "") -> Tokenised:
        """Encode pairs as rows, a group for each; truncated are those whose question is."""
        windows = self.encode(pairs, label)
        rows = rows_of([[w.ids for w in of_pair] for of_pair in windows])
        once = np.asarray([_once(of_pair) for of_pair in windows], np.int64)
        truncated = np.asarray([self._short(question) != question for question, _ in pairs], bool)
        return Tokenised(rows, truncated, once)

    def spans(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Tell where the tokens of `tokens` stand in their contexts."""
        return [_encoded(windows) for windows in self.encode(pairs)]

    def _short(self, question: str) -> str:
        if len(question) <= self._longest_question:  # a token has a character or more
            return question
        offsets = self._plain.encode(question, add_special_tokens=False).offsets
        return (
            question if len(offsets) <= self._longest_question else question[: offsets[self._longest_question - 1][1]]
        )


def _once(windows: Sequence[Any]) -> int:
    """Count the tokens of an example's windows, those of the question and of overlaps once."""
    first = windows[0]
    context = {span for w in windows for span, of in zip(w.offsets, w.sequence_ids, strict=True) if of == 1}
    return len(context) + sum(1 for sequence in first.sequence_ids if sequence != 1)


def _encoded(windows: Sequence[Any]) -> Encoded:
    spans, number = [], []
    for index, window in enumerate(windows):
        of_window = np.asarray(window.offsets, np.int32).reshape(-1, 2)
        context = np.asarray([sequence == 1 for sequence in window.sequence_ids], bool)
        context &= of_window[:, 1] > of_window[:, 0]  # a special token of the context has no characters
        spans.append(np.where(context[:, None], of_window, np.int32(-1)))
        number.append(np.full(len(of_window), index, np.int32))
    return Encoded(np.concatenate(spans), np.concatenate(number))
