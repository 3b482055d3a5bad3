"""Explanations of an answer: which words, or sentences, of the text it comes from.

    leave-one-out            weight[i] = p(label | text) - p(label | text without part i)
    integrated-gradients,    weight[i] = sum of the attributions of part i's tokens to the label's log-odds
    gradient-x-input                     (explanation/gradients.py)

Leave-one-out works with any backend; the shortened texts are planned into micro-batches like any others. The gradient
methods need the torch backend; only they import it.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from distilora.batching.rows import rows_of
from distilora.batching.tokens import stretches_read
from distilora.data.examples import Example
from distilora.errors import ConfigError, DataError
from distilora.inference.predictor import STREAM, Predictor

Method = Literal["leave-one-out", "integrated-gradients", "gradient-x-input"]
Level = Literal["word", "sentence"]

# Points of integrated gradients by precision: 512 tokens take under 2 s on two cores with the embedded encoder
# (LOG.md: What an explanation costs)
STEPS = {"fp32": 7, "bf16": 14}
MOST_STEPS = 1000
_WORD = re.compile(r"\S+")
_SENTENCE_END = re.compile(
    r"(?<![.!?…])[.!?…]+[\"'”’)\]]*\s+"
)  # matches a run of marks only from its start: linear time


class Weight(NamedTuple):
    """A word, or sentence, with its span in the cleaned text (characters, end excluded) and its weight.

    `weight` is None if truncation removed the part.
    """

    word: str
    start: int
    end: int
    weight: float | None


class NgramWeight(NamedTuple):
    """An n-gram that the expert knows, with its span where it first occurs and what it adds to the label's margin.

    The margin is the label's logit minus the mean of the others': of two labels, the log-odds.
    """

    ngram: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Explanation:
    """The weight of each part of a text for a label."""

    text: str
    """The text as cleaned for prediction."""
    method: Method
    level: Level
    label: str
    probability: float
    """The label's calibrated probability, or the value of a task that predicts a number."""
    parts: tuple[Weight, ...]
    """Words or sentences in the order of the text."""
    steps: int | None = None
    """Points of integrated gradients; None for other methods."""
    difference: float | None = None
    """Log-odds of the text minus those of the baseline, which a gradient method attributes; None for leave-one-out."""
    special: float | None = None
    """The amount attributed to special tokens ([CLS], [SEP]); 0 with integrated gradients, None for leave-one-out."""
    completeness_error: float | None = None
    """|sum of all attributions - difference|, in log-odds; None for leave-one-out."""
    ngrams: tuple[NgramWeight, ...] | None = None
    """N-grams of the expert, heaviest first: their exact contributions, of the whole text; None for a model without expert."""

    numeric: bool = False
    """Whether a number is explained, instead of a label; `label` is then its name."""

    @property
    def measure(self) -> str:
        """The quantity that weights are differences of: 'probability' or 'log-odds', or the name of a number."""
        if self.numeric:
            return self.label
        return "probability" if self.method == "leave-one-out" else "log-odds"

    @property
    def answered(self) -> str:
        """The answer that is explained, as 'pos 97.1%' or 'value 7.31'."""
        return f"{self.label} {self.probability:.4g}" if self.numeric else f"{self.label} {self.probability:.1%}"

    @property
    def cut(self) -> int:
        """The number of parts that truncation removed."""
        return sum(part.weight is None for part in self.parts)

    def record(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "text": self.text,
            "method": self.method,
            "level": self.level,
            "label": self.label,
            self.label if self.numeric else "probability": self.probability,
            "measure": self.measure,
            "steps": self.steps,
            "difference": self.difference,
            "special": self.special,
            "completeness_error": self.completeness_error,
            "cut": self.cut,
            "parts": [part._asdict() for part in self.parts],
            **({} if self.ngrams is None else {"ngrams": [ngram._asdict() for ngram in self.ngrams]}),
        }


def explain(
    predictor: Predictor,
    text: str | Mapping[str, Any],
    method: Method = "leave-one-out",
    level: Level = "word",
    label: str | None = None,
    steps: int | None = None,
) -> Explanation:
    """Explain the answer to a text, for `label` (None: the predicted one).

    Args:
        method: leave-one-out, integrated-gradients or gradient-x-input (see explanation/gradients.py).
        level: a word is what stands between white space; a sentence ends with . ! ? or … (and closing quotes or
            brackets) before white space, also after an abbreviation. Its gradients are the sum of its words'.
        steps: points of integrated gradients, 1 to 1000 (None: 7 in fp32, 14 in bf16); more points reduce the completeness
            error.

    Parts that truncation removes have no weight; leaving a part out makes room for others. Of a model with an n-gram expert,
    leave-one-out explains the combined answer, a gradient method the encoder's part of it; `ngrams` has the expert's.

    Raises DataError if there is no such label, the task has none, or there are fewer than two parts to leave one out;
    ConfigError if the method does not suit the predictor; MissingExtra without Captum. While gradients are computed, no
    other thread may use the predictor.
    """
    check_choice(method, level, steps)
    example = predictor.example(text, "text 1")
    by_token = predictor.task.output_kind == "tokens"
    if len(example.texts) != 1 and not by_token:
        raise DataError(
            f"explain: task {predictor.artifact.task['name']} reads a text in pieces; predict them one by one"
        )
    spans = parts_of(example.texts[-1], level)
    if by_token and method != "leave-one-out":
        raise ConfigError(
            f"explain.method: {method} explains answers to a whole text, which those of task {predictor.task.name} are not; use "
            "leave-one-out"
        )
    if method == "leave-one-out":
        explanation = _leave_one_out(predictor, example, level, label, spans)
    else:
        explanation = _gradients(predictor, example, method, level, label, spans, steps)
    return replace(explanation, ngrams=_ngrams(predictor, example, explanation.label))


def _ngrams(predictor: Predictor, example: Example, label: str) -> tuple[NgramWeight, ...] | None:
    """Weigh the n-grams of the model's expert, if it has one."""
    expert = predictor.calibrate.expert
    if expert is None:
        return None
    (text,) = example.texts
    chosen = predictor.task.labels.index(label)
    weights = [
        NgramWeight(
            text[ngram.start : ngram.end], ngram.start, ngram.end,
            expert.weights.expert * float(row[chosen] - np.delete(row, chosen).mean()),
        )
        for ngram, row in expert.lexicon.contributions(text)
    ]  # fmt: skip
    return tuple(sorted(weights, key=lambda ngram: -abs(ngram.weight)))


def check_choice(method: str, level: str, steps: int | None) -> None:
    """Raise ConfigError if `explain` has no such method, level or number of steps."""
    for name, value, choices in (("method", method, get_args(Method)), ("level", level, get_args(Level))):
        if value not in choices:
            raise ConfigError(f"explain.{name}: {value!r} given, {', '.join(choices[:-1])} or {choices[-1]} wanted")
    if steps is None:
        return
    if method != "integrated-gradients":
        raise ConfigError(f"explain.steps: {method} takes none; drop it, or choose integrated-gradients")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"explain.steps: {steps!r} given, a whole number from 1 to {MOST_STEPS} wanted")


def _leave_one_out(
    predictor: Predictor, example: Example, level: Level, label: str | None, spans: Sequence[tuple[int, int]]
) -> Explanation:
    *before, text = example.texts  # a question stays; words of its context are left out
    if len(spans) < 2:
        remedy = "give a longer text" if level == "word" else "explain it by word"
        raise DataError(f"explain: one {level} cannot be left out of a text of fewer than two; {remedy}")
    (answer,) = predictor.answer([example])
    label, key = predictor.task.explained_answer(answer, label)
    in_windows = predictor.task.output_kind == "tokens"  # of which nothing is cut
    stretches = [(0, len(text))] if in_windows else stretches_read(predictor.tokenizer.encode(text), text)
    left_out = [span for span in spans if _is_read(span, stretches)]
    # Examples, not texts: the text is clean already, and cleaning it twice would turn &amp;lt; into a tag's <.
    shorter = [Example((*before, text[:start] + text[end:])) for start, end in left_out]
    value = float(answer[key])
    chunks = (shorter[at : at + STREAM] for at in range(0, len(shorter), STREAM))
    without = [float(answer[key]) for answers in predictor.answers(chunks) for answer in answers]
    weights = dict(zip(left_out, (value - reduced for reduced in without), strict=True))
    parts = tuple(Weight(text[start:end], start, end, weights.get((start, end))) for start, end in spans)
    return Explanation(text, "leave-one-out", level, label, value, parts, numeric=_numeric(predictor))


def _gradients(
    predictor: Predictor, example: Example, method: Method, level: Level, label: str | None,
    spans: Sequence[tuple[int, int]], steps: int | None,
) -> Explanation:  # fmt: skip
    backend = _torch_backend(predictor, method)
    from distilora.explanation.gradients import attribute

    (text,) = example.texts
    encoding = predictor.tokenizer.encode(text)
    steps = None if method == "gradient-x-input" else steps or STEPS[backend.precision]
    special = np.asarray(encoding.special_tokens_mask, bool)
    expert = predictor.calibrate.expert
    label, key = predictor.task.explained_answer(predictor.answer([example])[0], label)
    # of the encoder's part in the combined logits, if there is an expert
    temperature = predictor.artifact.temperature if expert is None else 1 / max(expert.weights.encoder, 1e-6)
    attribution = attribute(
        backend.network, rows_of([[encoding.ids]]), special, 0 if _numeric(predictor) else predictor.task.labels.index(label),
        temperature, steps, backend.token_budget, backend.precision,
    )  # fmt: skip
    (answer,) = predictor.task.decode(
        predictor.calibrate(attribution.logits, [example]), [example], predictor.tokenizer
    )
    stretches = stretches_read(encoding, text)
    starts, weights = [start for start, _ in spans], [0.0] * len(spans)
    for (_, end), value, is_special in zip(encoding.offsets, attribution.tokens.tolist(), special, strict=True):
        if not is_special:  # a token may begin with the space before its word: its last character identifies the word
            weights[max(bisect_right(starts, end - 1) - 1, 0)] += value
    parts = tuple(
        Weight(text[start:end], start, end, weight if _is_read((start, end), stretches) else None)
        for (start, end), weight in zip(spans, weights, strict=True)
    )
    return Explanation(
        text, method, level, label, float(answer[key]), parts, steps, attribution.difference,
        math.fsum(attribution.tokens[special]), abs(math.fsum(attribution.tokens) - attribution.difference),
        numeric=_numeric(predictor),
    )  # fmt: skip


def _numeric(predictor: Predictor) -> bool:
    return not predictor.task.labels


def _torch_backend(predictor: Predictor, method: Method) -> Any:
    """Return the predictor's torch backend, which computes gradients. Raises ConfigError if it has another one."""
    try:
        from distilora.inference.backends.torch_backend import TorchBackend
    except ImportError:
        backend = None
    else:
        backend = predictor.backend if isinstance(predictor.backend, TorchBackend) else None
    if backend is None:
        raise ConfigError(f"explain.method: {method} needs the torch backend; use --method leave-one-out")
    return backend


def parts_of(text: str, level: Level) -> list[tuple[int, int]]:
    """Find the start and end of each word or sentence."""
    if level == "word":
        return [match.span() for match in _WORD.finditer(text)]
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    pieces = zip([0, *ends], [*ends, len(text)], strict=True)
    spans = ((end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())) for start, end in pieces)
    return [(start, end) for start, end in spans if start < end]


def _is_read(span: tuple[int, int], stretches: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a part of the text lies, at least partly, in one of the stretches that truncation keeps."""
    return any(span[0] < end and span[1] > start for start, end in stretches)
