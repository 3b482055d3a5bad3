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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilora.batching.tokens import Tokenised
from distilora.data.alignment import align
from distilora.data.cleaning import Cleaning
from distilora.data.examples import Example, Examples
from distilora.errors import DataError
from distilora.tasks.base import Measurement, Outputs, Remeasured, Task
from distilora.tasks.documents import DocumentTask
from distilora.tasks.metrics.answers import answer_metrics, best_threshold, f1_by_share
from distilora.tasks.metrics.squad import exact, f1
from distilora.tasks.registry import register
from distilora.tasks.showing import Curve, Curves, Shown, Table
from distilora.tasks.spans import Goal, Truth, best_span, goal_of, read_truths
from distilora.tasks.token_outputs import TokenTask
from distilora.tasks.windows import Windows

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

QUESTIONS = ("question", "query")
EXCERPT = 600  # characters of a mistake's context
NO_ANSWER = "(no answer)"


@register
class QuestionAnswering(DocumentTask, TokenTask):
    """Extractive question answering; `threshold` is what no answer must score more than the best span."""

    name = "question_answering"
    outputs = 2
    pipeline_tag = "question-answering"
    example = '--question "How is the ending?" --context review.txt'
    headlines = ("f1", "exact_match", "f1_answerable")
    document_columns = ("context", "passage", "document", "review", "text")
    target_columns = ("answers", "answer")
    answers_with = "spans"

    def __init__(
        self,
        text_column: str = "context",
        label_column: str | None = "answers",
        question_column: str = "question",
        overlap: int = 128,
        longest: int = 64,
        threshold: float = 0.0,
    ) -> None:
        self.text_column, self.label_column, self.question_column = text_column, label_column, question_column
        self.overlap, self.longest, self.threshold = overlap, longest, threshold
        self._windows: tuple[Any, Windows] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns of context, answers and question, overlap of windows and most tokens of an answer, and the threshold."""
        return {
            "text_column": self.text_column, "label_column": self.label_column, "question_column": self.question_column,
            "overlap": self.overlap, "longest": self.longest, "threshold": self.threshold,
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task in words."""
        return "extractive question answering"

    @classmethod
    def other_columns(cls, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, str]:
        """Find the question's column, by its name in training, else by a usual one. Raises DataError without one."""
        trained = known.get("question_column")
        found = next((n for n in names if n == trained), None) or next(
            (n for n in names if n.lower().strip() in QUESTIONS), None
        )
        if found is None:
            raise DataError(
                f"question: no column called {' or '.join(QUESTIONS)} (columns: {', '.join(names)}); rename the question's"
            )
        return {"question_column": found}

    def document(self, values: Mapping[str, Any]) -> Example:
        """Read question and context. Raises DataError for anything but text."""
        return Example(tuple(self._text(values, name) for name in (self.question_column, self.text_column)))

    def target(self, value: Any, document: Example) -> tuple[Truth, ...]:
        """Read the answers with their places. Raises DataError for an answer that is not there."""
        return read_truths(value, document.texts[1], str(self.label_column))

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
            places = (alignment.in_cleaned(start, end) for _, start, end in target)
            target = tuple(Truth(alignment.text[start:end], start, end) for start, end in places if start < end)
        return replace(example, texts=texts, target=target, origin=alignment)

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
            goal_of(example, encoded)
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
        return self.with_settings(threshold=best_threshold(margins, answered, unanswered))

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into answers.

        `answer` is the text as it was read, empty for none; `start` and `end` are its place in the context as given, -1 for none;
        `score` is the probability of span or no answer, `no_answer` the share of no answer among the two.
        """
        answers = []
        for logits, example, encoded in zip(
            outputs, examples, self._encoder(tokenizer).spans(_pairs(examples)), strict=True
        ):
            best = best_span(logits, encoded, self.longest)
            share = float(1 / (1 + np.exp(-best.margin)))
            if best.margin > self.threshold or best.start == best.end:
                answers.append({"answer": "", "start": -1, "end": -1, "score": best.p_nothing, "no_answer": share})
                continue
            start, end, text = best.start, best.end, example.texts[-1][best.start : best.end]
            if example.origin is not None:
                start, end = example.origin.in_original(start, end)
            answers.append({"answer": text, "start": start, "end": end, "score": best.p, "no_answer": share})
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
            measured["figures"] = {"by_share": f1_by_share(margins, spans, [goal.truth for goal in targets])}
        return measured

    def _judged(self, outputs: Outputs, targets: Sequence[Goal]) -> tuple[NDArray[np.float64], list[str]]:
        """Return what no answer scores more than the best span, [G], and that span, of every question."""
        best = [best_span(logits, goal.encoded, self.longest) for logits, goal in zip(outputs, targets, strict=True)]
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
                    "place": items[i].place, "question": items[i].texts[0], "target": " | ".join(truths[i]) or NO_ANSWER,
                    "answer": answers[i]["answer"] or NO_ANSWER, "score": answers[i]["score"],
                    "text": items[i].texts[1][:EXCERPT],
                }
                for i in wrong[: measurement.max_mistakes]
            ],
        }  # fmt: skip

    def target_text(self, target: Any) -> str:
        """Join the true answers."""
        return " | ".join(json.loads(target)) or NO_ANSWER

    def answer_text(self, answer: Mapping[str, Any]) -> str:
        """Return the answer and its probability."""
        return f"{answer['answer'] or NO_ANSWER} {answer['score']:.2f}"

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


def _pairs(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(example.texts[0], example.texts[-1]) for example in examples]


def _never(split: Mapping[str, Any]) -> list[str]:
    if "baseline" not in split:
        return []
    return [f"Never answering would have an F1 of {split['baseline']['f1']:.2%}."]
