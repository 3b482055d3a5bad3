"""Answers a question with a span of a context, or says that the context does not answer it (extractive, as in SQuAD 2).

Every token of the context has a logit s to start the answer and one, e, to end it; the first tokens of the windows
(tasks/windows.py) stand for no answer, s_0 and e_0: the least over the windows, since one with an answer should have small ones.
All windows of a context share one softmax, so that their scores compare (Clark & Gardner, ACL 2018):

    P(start = i) = exp(s_i) / (exp(s_0) + sum over the context's tokens of all windows of exp(s))        ends alike
    loss = -(log sum of P(start) over the true starts + the same of ends) / 2        a token in two windows is there twice
    answer = the span of greatest s_i + e_j in one window, unless s_0 + e_0 exceeds that by more than a threshold

The threshold is that of the best F1 on validation. Offsets are characters of the context as it was given (data/alignment.py).
Metrics are those of SQuAD's official evaluation (tasks/metrics/squad.py).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from distilora.batching.tokens import Tokenised
from distilora.config.schema import DataConfig, SourceConfig
from distilora.data.alignment import align
from distilora.data.cleaning import Cleaning
from distilora.data.examples import Example, Examples
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks.base import Measurement, Outputs, Remeasured, Task
from distilora.tasks.columns import find_column, refuse_label_columns
from distilora.tasks.metrics.squad import exact, f1
from distilora.tasks.registry import register
from distilora.tasks.showing import Curve, Curves, Shown, Table
from distilora.tasks.token_outputs import TokenTask
from distilora.tasks.windows import Encoded, Windows

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "document", "review", "text")
ANSWERS = ("answers", "answer")
STARTS = 20  # starts per window of which the best ends are searched
EXCERPT = 600  # characters of a mistake's context


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


@register
class QuestionAnswering(TokenTask):
    """Extractive question answering; `threshold` is what no answer must score more than the best span."""

    name = "question_answering"
    outputs = 2
    pipeline_tag = "question-answering"
    example = '--question "How is the ending?" --context review.txt'
    headlines = ("f1", "exact_match", "f1_answerable")

    def __init__(
        self,
        question_column: str = "question",
        context_column: str = "context",
        answers_column: str | None = "answers",
        overlap: int = 128,
        longest: int = 64,
        threshold: float = 0.0,
    ) -> None:
        self.question_column, self.context_column, self.answers_column = question_column, context_column, answers_column
        self.overlap, self.longest, self.threshold = overlap, longest, threshold
        self.label_column = answers_column
        self._windows: tuple[Any, Windows] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, overlap of windows and most tokens of an answer, and the threshold."""
        return {
            "question_column": self.question_column, "context_column": self.context_column,
            "answers_column": self.answers_column, "overlap": self.overlap, "longest": self.longest,
            "threshold": self.threshold,
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task in words."""
        return "extractive question answering"

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns of the training split. Raises DataError or ConfigError naming the field at fault."""
        refuse_label_columns(config, cls.name)
        if config.truncation_side != "right":
            raise ConfigError(
                f"data.truncation_side: {config.truncation_side} given, but task {cls.name} reads long contexts in windows and "
                "cuts nothing; drop it"
            )
        if config.labels is not None:
            raise ConfigError(f"data.labels: given, but task {cls.name} answers with spans; drop it")
        first = next(iter(source.records(config.train_split, "data.train_split")), None)
        if first is None:
            raise DataError(f"data.train_split: {source.name} {config.train_split} has no records; give another")
        question = _question(first.values)
        context = find_column(
            [name for name in first.values if name != question], config.text_column, CONTEXTS, "data.text_column"
        )
        answers = find_column(first.values, config.label_column, ANSWERS, "data.label_column")
        say(f"data: question from column {question!r}, context from {context!r}, answers from {answers!r}")
        return cls(question, context, answers)

    def read(self, values: Mapping[str, Any]) -> Example:
        """Read question and context, and the answers with their places. Raises DataError for an answer that is not there."""
        question, context = (self._text(values, name) for name in (self.question_column, self.context_column))
        if self.answers_column is None:
            return Example((question, context))
        if self.answers_column not in values:
            raise DataError(
                f"data.label_column: no column {self.answers_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return Example((question, context), _truths(values[self.answers_column], context, self.answers_column))

    def _text(self, values: Mapping[str, Any], name: str) -> str:
        if name not in values:
            raise DataError(
                f"{name}: no such column (columns: {', '.join(map(str, values))}); a question and its context are needed"
            )
        text = values[name]
        if text is not None and not isinstance(text, str):
            raise DataError(f"{name}: {type(text).__name__} given, text wanted")
        return text or ""

    def cleaned(self, example: Example, cleaning: Cleaning) -> Example:
        """Clean question and context, and move the answers to where they stand in the cleaned context."""
        question, context = example.texts
        alignment = align(context, cleaning)
        texts = (cleaning.clean(question), alignment.text)
        if not texts[0].strip() or not texts[1].strip():
            texts = ("", "")  # half of the two is nothing to answer
        target = example.target
        if target is not None:
            moved = (Truth(text, *alignment.in_cleaned(start, end)) for text, start, end in target)
            target = tuple(truth for truth in moved if truth.start < truth.end)
        return replace(example, texts=texts, target=target, origin=alignment)

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Adapt the task to the columns of other labelled data."""
        first = next(iter(source.records(split, "data.split")), None)
        if first is None:
            raise DataError(f"data.path: {source.name} {split} has no records; give another split")
        names = list(map(str, first.values))
        question = self.question_column if self.question_column in names else _question(names)
        known = self.context_column if self.context_column in names else None
        context = find_column(names, columns.text_column or known, CONTEXTS, "data.text_column")
        known = self.answers_column if self.answers_column in names else None
        answers = find_column(names, columns.label_column or known, ANSWERS, "data.label_column")
        task = self._with(question_column=question, context_column=context, answers_column=answers)
        return task, task.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> Task:
        """Adapt the task to records without answers; `text_column` is that of the context."""
        names = list(map(str, columns))
        question = self.question_column if self.question_column in names else _question(names)
        known = text_column or (self.context_column if self.context_column in names else None)
        return self._with(
            question_column=question,
            context_column=find_column(names, known, CONTEXTS, "text-column"),
            answers_column=None,
        )

    def _with(self, **settings: Any) -> "QuestionAnswering":
        return QuestionAnswering(**{**self.settings, **settings})

    def check(self, examples: Examples) -> None:
        """Raise DataError if no question has an answer."""
        if not any(examples.targets):
            raise DataError(
                f"data.label_column: no question of {examples.split} has an answer; there is nothing to learn"
            )

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return the stratum of each target: whether there is an answer."""
        return [bool(target) for target in targets]

    def target_name(self, target: Any) -> Any:
        """Return the true answers as a list in JSON; None without a target."""
        return None if target is None else json.dumps([truth[0] for truth in target], ensure_ascii=False)

    def tokenise(self, tokenizer: "Tokenizer", examples: Sequence[Example], label: str = "") -> Tokenised:
        """Encode each question with windows of its context."""
        return self._encoder(tokenizer).tokens(_pairs(examples), label)

    def targets(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[Any]:
        """Return for each example the tokens that start and end its true answers."""
        return [
            _goal(example, encoded)
            for example, encoded in zip(examples, self._encoder(tokenizer).spans(_pairs(examples)), strict=True)
        ]

    def _encoder(self, tokenizer: Any) -> Windows:
        if self._windows is None or self._windows[0] is not tokenizer:
            self._windows = tokenizer, Windows(tokenizer, self.overlap)
        return self._windows[1]

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute minus the mean log-probability of start and end, [G]."""
        import torch

        count, longest = outputs.shape[:2]
        inside, true = np.zeros((count, longest), bool), np.zeros((count, longest, 2), bool)
        for row, goal in enumerate(targets):
            inside[row, : len(goal.encoded.window)] = goal.encoded.inside
            true[row, list(goal.starts), 0] = True
            true[row, list(goal.ends), 1] = True
        nothing = torch.stack(
            [
                outputs[row, torch.from_numpy(goal.encoded.firsts).to(outputs.device)].amin(0)
                for row, goal in enumerate(targets)
            ]
        )  # [G, 2]
        context = torch.from_numpy(inside).to(outputs.device)[..., None]
        everything = torch.cat([nothing[:, None], outputs.masked_fill(~context, -torch.inf)], 1).logsumexp(1)
        answers = outputs.masked_fill(~torch.from_numpy(true).to(outputs.device), -torch.inf)
        answerable = torch.from_numpy(true.any(axis=(1, 2))).to(outputs.device)[:, None]
        # without an answer the masked logits would give minus infinity, whose gradient is not a number
        goal_logits = torch.where(
            answerable, torch.where(answerable[..., None], answers, outputs).logsumexp(1), nothing
        )
        return (everything - goal_logits).mean(1)

    def decided(self, outputs: Outputs, targets: Sequence[Any]) -> Task:
        """Return the task with the threshold of the best F1; of equal ones the nearest to 0."""
        margins, spans = self._judged(outputs, targets)
        answered = np.asarray([f1(span, goal.truth) for span, goal in zip(spans, targets, strict=True)])
        unanswered = np.asarray([f1("", goal.truth) for goal in targets])
        return self._with(threshold=_best_threshold(margins, answered, unanswered))

    def best(self, logits: NDArray[np.float32], encoded: Encoded) -> Best:
        """Find the best span of a context, of at most `longest` tokens in one window; an empty one at 0 where there is none."""
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
                last = place + int(ends[place : place + self.longest].argmax())
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

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into `answer` ('' for none), its `start` and `end` in the context as given (-1), its `score`, the
        probability of span or no answer, and `no_answer`, the share of no answer among the two.
        """  # fmt: skip
        answers = []
        for logits, example, encoded in zip(
            outputs, examples, self._encoder(tokenizer).spans(_pairs(examples)), strict=True
        ):
            best = self.best(logits, encoded)
            share = float(1 / (1 + np.exp(-best.margin)))
            if best.margin > self.threshold or best.start == best.end:
                answers.append({"answer": "", "start": -1, "end": -1, "score": best.p_nothing, "no_answer": share})
                continue
            start, end, text = best.start, best.end, example.texts[-1]
            if example.origin is not None:
                start, end = example.origin.in_original(start, end)
                text = example.origin.original
            answers.append({"answer": text[start:end], "start": start, "end": end, "score": best.p, "no_answer": share})
        return answers

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of questions of which the likeliest start and the likeliest end are the same tokens."""
        return float(np.mean((ours.argmax(axis=1) == theirs.argmax(axis=1)).all(axis=1)))

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Explain the probability of the answer."""
        if label is not None:
            raise DataError(f"explain.label: {label!r} given, but task {self.name} has no labels; drop it")
        return str(answer["answer"] or "no answer"), "score"

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute F1 and exact match of all questions, F1 of those with an answer, and accuracy on those without."""
        margins, spans = self._judged(outputs, targets)
        texts = ["" if margin > self.threshold else span for margin, span in zip(margins, spans, strict=True)]
        measured = answer_metrics(texts, [goal.truth for goal in targets], resamples)
        if resamples:
            measured["figures"] = {"by_share": _by_share(margins, spans, [goal.truth for goal in targets])}
        return measured

    def _judged(self, outputs: Outputs, targets: Sequence[Goal]) -> tuple[NDArray[np.float64], list[str]]:
        """Return what no answer scores more than the best span, [G], and that span, of every question."""
        best = [self.best(logits, goal.encoded) for logits, goal in zip(outputs, targets, strict=True)]
        spans = [goal.context[found.start : found.end] for found, goal in zip(best, targets, strict=True)]
        return np.asarray([found.margin for found in best]), spans

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Compute the mean F1."""
        rows = zip(*self._judged(outputs, targets), targets, strict=True)
        return "f1", float(
            np.mean([f1("" if margin > self.threshold else span, goal.truth) for margin, span, goal in rows])
        )

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Compute what always answering nothing would reach, F1 by threshold, and the surest wrong answers."""
        items, answers = measurement.examples.items, measurement.answers
        truths = [[truth[0] for truth in item.target] for item in items]
        scores = np.asarray([f1(a["answer"], truth) for a, truth in zip(answers, truths, strict=True)])
        wrong = [i for i in np.argsort([-a["score"] for a in answers], kind="stable").tolist() if scores[i] < 0.5]
        nothing = float(np.mean([not truth for truth in truths]))
        return {
            "baseline": {"answer": "", "f1": nothing},
            "verdict": ""
            if measurement.metrics["f1"]["value"] > nothing
            else f"The model is no better than never answering, which has an F1 of {nothing:.1%}.",
            "answered": {"share": float(np.mean([bool(a["answer"]) for a in answers]))},
            "mistakes": [
                {
                    "place": items[i].place, "question": items[i].texts[0], "target": " | ".join(truths[i]) or "(no answer)",
                    "answer": answers[i]["answer"] or "(no answer)", "score": answers[i]["score"],
                    "text": items[i].texts[1][:EXCERPT],
                }
                for i in wrong[: measurement.max_mistakes]
            ],
        }  # fmt: skip

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Tell whether an answer is exactly one of the true ones."""
        return bool(exact(answer["answer"] or "", json.loads(target)))

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the answers that were saved; an answer's quality is its F1."""
        from distilora.tasks.metrics.bootstrap import resampled_mean

        pairs = [(row["answer"] or "", json.loads(row["target"])) for row in predictions]
        shared = np.asarray([f1(answer, truth) for answer, truth in pairs])
        right = np.asarray([exact(answer, truth) for answer, truth in pairs])
        resampled = {"f1": resampled_mean(shared, resamples), "exact_match": resampled_mean(right, resamples)}
        return Remeasured(
            {"f1": float(shared.mean()), "exact_match": float(right.mean())}, resampled, shared, right > 0
        )

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show F1 by the share answered, the constant answer, and the surest wrong answers."""
        pictures, tables = [], []
        if curve := split["figures"].get("by_share"):
            lines = [Curve("F1", curve["share"], curve["f1"])]
            pictures = [Curves("F1 of all questions by the share that is answered", lines, "share answered", "F1")]
        if split.get("mistakes"):
            rows = [
                (row["question"], row["target"], row["answer"], f"{row['score']:.3f}", row["text"])
                for row in split["mistakes"]
            ]
            columns = ("question", "true", "answered", "probability", "context")
            tables = [Table("The surest wrong answers", columns, rows, text=("context",))]
        return Shown(_never(split), pictures, tables)

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say what never answering would reach."""
        return _never(splits[0])

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Say what never answering would reach."""
        return ["", *(f"  {line}" for line in _never(split))]


def answer_metrics(answers: Sequence[str], truths: Sequence[Sequence[str]], resamples: int = 0) -> dict[str, Any]:
    """Compute F1 and exact match of all questions, F1 of the answerable ones, accuracy on the others; None where there are none."""
    from distilora.tasks.metrics.bootstrap import draws, interval

    answerable = np.asarray([bool(truth) for truth in truths])
    shared = np.asarray([f1(answer, truth) for answer, truth in zip(answers, truths, strict=True)])
    right = np.asarray([exact(answer, truth) for answer, truth in zip(answers, truths, strict=True)])
    everything = np.ones(len(shared), bool)
    measured: dict[str, Any] = {}
    for name, values, of in (
        ("f1", shared, everything), ("exact_match", right, everything), ("f1_answerable", shared, answerable),
        ("no_answer_accuracy", shared, ~answerable),
    ):  # fmt: skip
        if not of.any():
            measured[name] = {"value": None, "low": None, "high": None}
            continue
        low = high = None
        if resamples:
            parts = [(values * of) @ weights / np.maximum(of @ weights, 1) for weights in draws(len(values), resamples)]
            low, high = interval(np.concatenate(parts))
        measured[name] = {"value": float(values[of].mean()), "low": low, "high": high}
    return measured


def _best_threshold(
    margins: NDArray[np.float64], answered: NDArray[np.float64], unanswered: NDArray[np.float64]
) -> float:
    """Choose the threshold of the best mean F1, where questions with a greater margin stay without an answer."""
    order = np.argsort(margins, kind="stable")
    levels = margins[order]
    candidates = np.concatenate([[levels[0] - 1], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 1]])
    gains = np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])])
    best = np.flatnonzero(gains >= gains.max() - 1e-9)
    return float(candidates[best[np.argmin(np.abs(candidates[best]))]])


def _by_share(
    margins: NDArray[np.float64], spans: Sequence[str], truths: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Compute F1 of all questions where only those of the least margins are answered, by their share: at most 101 points."""
    order = np.argsort(margins, kind="stable")
    answered = np.asarray([f1(span, truth) for span, truth in zip(spans, truths, strict=True)])[order]
    unanswered = np.asarray([f1("", truth) for truth in truths])[order]
    values = np.concatenate([[0.0], np.cumsum(answered - unanswered)]) + unanswered.sum()
    places = np.unique(np.linspace(0, len(order), 101).round().astype(int))
    return {"share": (places / len(order)).tolist(), "f1": (values[places] / len(order)).tolist()}


def _question(columns: Collection[str]) -> str:
    """Find the question's column by a usual name. Raises DataError without one."""
    found = next((column for column in map(str, columns) if column.lower().strip() in QUESTIONS), None)
    if found is None:
        raise DataError(
            f"question: no column called {' or '.join(QUESTIONS)} (columns: {', '.join(map(str, columns))}); rename the question's"
        )
    return found


def _pairs(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(example.texts[0], example.texts[-1]) for example in examples]


def _goal(example: Example, encoded: Encoded) -> Goal:
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


def _truths(value: Any, context: str, column: str) -> tuple[Truth, ...]:
    """Read SQuAD's answers, {text: [...], answer_start: [...]} or a list of {text, answer_start}, also as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise DataError(
                f"data.label_column: {column!r} holds {value!r:.60}, which is not JSON; correct it"
            ) from None
    if value is None:
        return ()
    try:
        if isinstance(value, Mapping):
            pairs = list(zip(value["text"], value["answer_start"], strict=True))
        else:
            pairs = [(answer["text"], answer["answer_start"]) for answer in value]
        truths = tuple(Truth(str(text), int(start), int(start) + len(str(text))) for text, start in pairs)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"data.label_column: {column!r} holds {value!r:.60}; lists `text` and `answer_start` of equal length are wanted"
        ) from None
    return tuple(_placed(truth, context) for truth in truths if truth.text.strip())


def _placed(truth: Truth, context: str) -> Truth:
    """Return an answer where it stands: at its offset, else where the context holds it once. Raises DataError elsewhere."""
    if context[truth.start : truth.end] == truth.text:
        return truth
    start = context.find(truth.text)
    if start < 0 or context.find(truth.text, start + 1) >= 0:
        times = "nowhere" if start < 0 else "in several places"
        raise DataError(
            f"data.label_column: the answer {truth.text!r:.60} does not stand at character {truth.start} of the context, but "
            f"{times}; correct it"
        )
    return Truth(truth.text, start, start + len(truth.text))


def _never(split: Mapping[str, Any]) -> list[str]:
    if "baseline" not in split:
        return []
    return [f"Never answering would have an F1 of {split['baseline']['f1']:.2%}."]
