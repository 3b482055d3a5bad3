"""Summarises a document in words of its own, by an encoder-decoder (T5, FLAN-T5, BART).

    loss = mean over the tokens of the first reference summary, its end included, of -log P(token | document, tokens before)

How a summary is written, beams, length and repetition (`generation.*` of the settings), is stored with the model: validation,
evaluation and prediction write alike.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distilora.config.schema import DataConfig, RunConfig, SourceConfig
from distilora.data.examples import Example, Examples
from distilora.data.fragments import sentence_starts
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import Record
from distilora.progress import say
from distilora.tasks.base import Measurement, Outputs, Remeasured, States, Task
from distilora.tasks.columns import find_column, refuse_label_columns
from distilora.tasks.metrics.rouge import MEASURES, rouge
from distilora.tasks.registry import register
from distilora.tasks.showing import Shown, Table
from distilora.tasks.summarization import DOCUMENTS, SUMMARIES, read_document, read_summaries, rouge_metrics

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows

EXCERPT = 600  # characters of a document in the report


@dataclass(frozen=True)
class Goal:
    """Target of a document: token ids of its first summary, and all of them."""

    ids: tuple[int, ...]
    references: tuple[str, ...] = field(repr=False)
    tokenizer: Any = field(repr=False, compare=False)


@register
class AbstractiveSummarization(Task):
    """Abstractive summarisation; `generation` is how summaries are written."""

    name = "abstractive_summarization"
    outputs = 1
    transformers_class = "AutoModelForSeq2SeqLM"
    pipeline_tag = "summarization"
    example = "--input long_review.txt"
    generates = True
    reads_documents = True
    headlines = ("rouge1", "rouge2", "rougeL")

    def __init__(
        self,
        document_column: str = "text",
        summaries_column: str | None = "summaries",
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        self.document_column, self.summaries_column = document_column, summaries_column
        self.text_column, self.label_column = document_column, summaries_column
        self.generation = dict(generation or {"max_new_tokens": 64})

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, and how summaries are written."""
        return {
            "document_column": self.document_column, "summaries_column": self.summaries_column,
            "generation": dict(self.generation),
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task in words."""
        return "abstractive summarisation"

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns of the training split. Raises DataError or ConfigError naming the field at fault."""
        refuse_label_columns(config, cls.name)
        if config.labels is not None:
            raise ConfigError(f"data.labels: given, but task {cls.name} answers in words; drop it")
        first = next(iter(source.records(config.train_split, "data.train_split")), None)
        if first is None:
            raise DataError(f"data.train_split: {source.name} {config.train_split} has no records; give another")
        document = find_column(first.values, config.text_column, DOCUMENTS, "data.text_column")
        others = [name for name in first.values if name != document]
        summaries = find_column(others, config.label_column, SUMMARIES, "data.label_column")
        say(f"data: documents from column {document!r}, summaries from {summaries!r}")
        return cls(document, summaries)

    def configured(self, config: RunConfig) -> Task:
        """Return the task that writes as the run's settings say."""
        given = config.generation
        return self._with(
            generation={
                "num_beams": given.beams, "max_new_tokens": given.longest, "length_penalty": given.length_penalty,
                "no_repeat_ngram_size": given.no_repeat,
            }
        )  # fmt: skip

    def read(self, values: Mapping[str, Any]) -> Example:
        """Read a document, a text or a list of its sentences, and its summaries. Raises DataError for anything else."""
        if self.document_column not in values:
            raise DataError(
                f"data.text_column: no column {self.document_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        document = read_document(values[self.document_column], self.document_column)
        example = Example((" ".join(document.texts),))
        if self.summaries_column is None:
            return example
        if self.summaries_column not in values:
            raise DataError(
                f"data.label_column: no column {self.summaries_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return replace(example, target=read_summaries(values[self.summaries_column], self.summaries_column))

    def read_text(self, text: str) -> Example:
        """Read a document without summaries."""
        return Example((text,))

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple[Task, Iterator[Record]]:
        """Adapt the task to the columns of other documents with summaries."""
        first = next(iter(source.records(split, "data.split")), None)
        if first is None:
            raise DataError(f"data.path: {source.name} {split} has no records; give another split")
        names = list(map(str, first.values))
        known = self.document_column if self.document_column in names else None
        document = find_column(names, columns.text_column or known, DOCUMENTS, "data.text_column")
        known = self.summaries_column if self.summaries_column in names else None
        summaries = find_column(names, columns.label_column or known, SUMMARIES, "data.label_column")
        task = self._with(document_column=document, summaries_column=summaries)
        return task, task.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> Task:
        """Adapt the task to documents without summaries."""
        name = text_column or (self.document_column if self.document_column in columns else None)
        document = find_column(columns, name, DOCUMENTS, "text-column")
        return self._with(document_column=document, summaries_column=None)

    def _with(self, **settings: Any) -> "AbstractiveSummarization":
        return AbstractiveSummarization(**{**self.settings, **settings})

    def target_name(self, target: Any) -> Any:
        """Return the summaries as a list in JSON; None without any."""
        return None if target is None else json.dumps(list(target), ensure_ascii=False)

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return one stratum for all."""
        return [0] * len(targets)

    def check(self, examples: Examples) -> None:
        """Accept any documents with summaries."""

    def targets(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[Any]:
        """Return for each document the tokens of its first summary, ended, and all summaries."""
        (*_, end) = tokenizer.encode("").ids
        longest = int(self.generation["max_new_tokens"])
        encodings = tokenizer.encode_batch([example.target[0] for example in examples], add_special_tokens=False)
        return [
            Goal((*encoding.ids[: longest - 1], end), tuple(example.target), tokenizer)
            for example, encoding in zip(examples, encodings, strict=True)
        ]

    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Raise NotImplementedError: an encoder-decoder writes by itself (model/writer.py)."""
        raise NotImplementedError

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the mean over the tokens of each target, [G], from their logits [G, longest, V]."""
        import torch

        labels = torch.full(outputs.shape[:2], -100, dtype=torch.int64)
        for row, target in enumerate(targets):
            labels[row, : len(target.ids)] = torch.tensor(target.ids)
        labels = labels.to(outputs.device)
        losses = torch.nn.functional.cross_entropy(outputs.float().transpose(1, 2), labels, reduction="none")
        return losses.sum(1) / (labels != -100).sum(1)

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode token ids into `summary`."""
        return [{"summary": _text(ids, tokenizer)} for ids in outputs]

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of summaries that are the same."""
        longest = max(ours.shape[1], theirs.shape[1])
        padded = [np.pad(ids, ((0, 0), (0, longest - ids.shape[1])), constant_values=-1e4) for ids in (ours, theirs)]
        return float(np.mean((padded[0] == padded[1]).all(axis=1)))

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Raise DataError: a summary is no number."""
        raise DataError(f"explain: the answers of task {self.name} are text, no number that words add to")

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute ROUGE-1, 2, L and Lsum of the summaries, against the reference with the best ROUGE-1."""
        pairs = zip(outputs, targets, strict=True)
        return rouge_metrics(
            [rouge(lines(_text(ids, goal.tokenizer)), goal.references) for ids, goal in pairs], resamples
        )

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """List the summaries with the least ROUGE-1."""
        items, answers = measurement.examples.items, measurement.answers
        scores = [rouge(lines(a["summary"]), item.target)["rouge1"] for item, a in zip(items, answers, strict=True)]
        worst = np.argsort(scores, kind="stable")[: measurement.max_mistakes].tolist()
        return {
            "mistakes": [
                {
                    "place": items[i].place, "target": " | ".join(items[i].target), "answer": answers[i]["summary"],
                    "text": " ".join(items[i].texts)[:EXCERPT],
                }
                for i in worst
            ],
        }  # fmt: skip

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Raise DataError: summaries are not right or wrong."""
        raise DataError(f"task {self.name}: a summary is not right or wrong; compare ROUGE")

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure the summaries that were saved; an answer's quality is its ROUGE-1."""
        from distilora.tasks.metrics.bootstrap import resampled_mean

        scores = [rouge(lines(row["summary"] or ""), json.loads(row["target"])) for row in predictions]
        values = {name: np.asarray([score[name] for score in scores]) for name in MEASURES}
        return Remeasured(
            {name: float(of.mean()) for name, of in values.items()},
            {name: resampled_mean(of, resamples) for name, of in values.items()},
            values["rouge1"],
            None,
        )

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show the worst summaries."""
        if not split.get("mistakes"):
            return Shown()
        worst = [(row["target"], row["answer"], row["text"]) for row in split["mistakes"]]
        columns = ("reference", "summary", "document")
        return Shown(tables=[Table("The summaries with the least ROUGE-1", columns, worst, text=("document",))])


def lines(text: str) -> str:
    """Put each sentence on a line of its own, as ROUGE-Lsum wants them."""
    starts = sentence_starts(text)
    return "\n".join(text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True))


def _text(ids: Any, tokenizer: "Tokenizer") -> str:
    return tokenizer.decode([int(token) for token in ids if token >= 0], skip_special_tokens=True).strip()
