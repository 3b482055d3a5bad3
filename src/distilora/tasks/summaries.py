"""Base of the tasks that summarise: documents and reference summaries as they are read, ROUGE, the worst summaries."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.tasks.base import Measurement, Remeasured
from distilora.tasks.documents import DocumentTask
from distilora.tasks.metrics.rouge import MEASURES, rouge
from distilora.tasks.showing import Table

EXCERPT = 600  # characters of a document in the report


class SummaryTask(DocumentTask):
    """Task that answers a document with `summary`; a document has one reference summary or several."""

    pipeline_tag = "summarization"
    example = "--input long_review.txt"
    reads_documents = True
    scored = False
    headlines = ("rouge1", "rouge2", "rougeL")
    document_columns = ("sentences", "document", "source", "article", "abstract", "text", "body", "review", "content")
    target_columns = ("summaries", "summary", "highlights", "target", "tldr")

    def target(self, value: Any, document: Example) -> tuple[str, ...]:
        """Read a summary, or a list of them. Raises DataError for anything else, and without one."""
        value = _in_json(value)
        found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
        if not found or not all(isinstance(text, str) for text in found) or not any(text.strip() for text in found):
            raise DataError(
                f"data.label_column: {self.label_column!r} holds {value!r:.60}; a summary or a list of them is wanted"
            )
        return tuple(text for text in found if text.strip())

    def read_text(self, text: str) -> Example:
        """Read a document without summaries."""
        return self.document({self.text_column: text})

    def target_name(self, target: Any) -> Any:
        """Return the summaries as a list in JSON; None without any."""
        return None if target is None else json.dumps(list(target), ensure_ascii=False)

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return one stratum for all."""
        return [0] * len(targets)

    def as_lines(self, summary: str) -> str:
        """Return a summary with each sentence on a line of its own, as ROUGE-Lsum wants it."""
        return summary

    def rouge(self, summary: str | None, references: Sequence[str]) -> dict[str, float]:
        """Compute ROUGE-1, 2, L and Lsum of a summary, against the reference with the best ROUGE-1."""
        return rouge(self.as_lines(summary or ""), references)

    def worst(self, measurement: Measurement) -> list[dict[str, Any]]:
        """List the summaries with the least ROUGE-1."""
        items, answers = measurement.examples.items, measurement.answers
        scores = [self.rouge(a["summary"], item.target)["rouge1"] for item, a in zip(items, answers, strict=True)]
        return [
            {
                "place": items[i].place, "target": " | ".join(items[i].target), "answer": answers[i]["summary"],
                "text": " ".join(items[i].texts)[:EXCERPT],
            }
            for i in np.argsort(scores, kind="stable")[: measurement.max_mistakes].tolist()
        ]  # fmt: skip

    @staticmethod
    def worst_table(split: Mapping[str, Any]) -> list[Table]:
        """Return the table of `worst` for the report; none without any."""
        worst = [(row["target"], row["answer"], row["text"]) for row in split.get("mistakes", [])]
        columns = ("reference", "summary", "document")
        return [Table("The summaries with the least ROUGE-1", columns, worst, text=("document",))] if worst else []

    def target_text(self, target: Any) -> str:
        """Join the reference summaries."""
        return " | ".join(json.loads(target))

    def answer_text(self, answer: Mapping[str, Any]) -> str:
        """Return the summary on one line."""
        return " ".join((answer["summary"] or "").split())

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Raise DataError: summaries are not right or wrong."""
        raise DataError(f"task {self.name}: a summary is not right or wrong; compare ROUGE")

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the summaries that were saved; an answer's quality is its ROUGE-1."""
        from distilora.tasks.metrics.bootstrap import resampled_mean

        scores = [self.rouge(row["summary"], json.loads(row["target"])) for row in predictions]
        values = {name: np.asarray([score[name] for score in scores]) for name in MEASURES}
        return Remeasured(
            {name: float(of.mean()) for name, of in values.items()},
            {name: resampled_mean(of, resamples) for name, of in values.items()},
            values["rouge1"],
            None,
        )


def read_document(value: Any, column: str) -> Example:
    """Read a text as it is, or a list of sentences with their spans as `origin`. Raises DataError for anything else."""
    value = _in_json(value)
    if value is None or value == [] or isinstance(value, str):
        return Example((value or "",))
    if not isinstance(value, list | tuple) or not all(isinstance(sentence, str) for sentence in value):
        raise DataError(
            f"data.text_column: {column!r} holds {type(value).__name__}; a text or a list of sentences is wanted"
        )
    return Example(tuple(value), origin=joined_spans(value))


def joined_spans(sentences: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the spans of sentences that are joined by spaces."""
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences]).tolist()
    return tuple((end - 1 - len(sentence), end - 1) for sentence, end in zip(sentences, ends, strict=True))


def mean_rouge(scores: Iterable[Mapping[str, float]], resamples: int = 0) -> dict[str, Any]:
    """Compute the mean of each measure over documents, with its 95% interval if `resamples` > 0."""
    from distilora.tasks.metrics.bootstrap import interval, resampled_mean

    scores = list(scores)
    measured = {}
    for name in MEASURES:
        values = np.asarray([score[name] for score in scores])
        low, high = interval(resampled_mean(values, resamples)) if resamples else (None, None)
        measured[name] = {"value": float(values.mean()), "low": low, "high": high}
    return measured


def _in_json(value: Any) -> Any:
    """Return the list that a cell holds in JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # else a text that begins with a bracket
            return json.loads(value)
    return value
