"""Summarises a document in words of its own, by an encoder-decoder (T5, FLAN-T5, BART).

    loss = mean over the tokens of the first reference summary, its end included, of -log P(token | document, tokens before)

How a summary is written, beams, length and repetition (`generation.*` of the settings), is stored with the model: validation,
evaluation and prediction write alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distilora.config.schema import RunConfig
from distilora.data.examples import Example
from distilora.data.fragments import sentence_starts
from distilora.errors import DataError
from distilora.tasks.base import Measurement, Outputs, States, Task
from distilora.tasks.registry import register
from distilora.tasks.showing import Shown
from distilora.tasks.summaries import SummaryTask, mean_rouge, read_document

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows


@dataclass(frozen=True)
class Goal:
    """Target of a document: token ids of its first summary, and all of them."""

    ids: tuple[int, ...]
    references: tuple[str, ...] = field(repr=False)
    tokenizer: Any = field(repr=False, compare=False)


@register
class AbstractiveSummarization(SummaryTask):
    """Abstractive summarisation; `generation` is how summaries are written."""

    name = "abstractive_summarization"
    outputs = 1
    transformers_class = "AutoModelForSeq2SeqLM"
    generates = True
    section = "generation"
    answers_with = "words of its own"
    in_windows = False

    def __init__(
        self,
        text_column: str = "text",
        label_column: str | None = "summaries",
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        self.text_column, self.label_column = text_column, label_column
        self.generation = dict(generation or {"max_new_tokens": 64})

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, and how summaries are written."""
        return {
            "text_column": self.text_column,
            "label_column": self.label_column,
            "generation": dict(self.generation),
        }

    @property
    def phrase(self) -> str:
        """The task in words."""
        return "abstractive summarisation"

    def configured(self, config: RunConfig) -> Task:
        """Return the task that writes as the run's settings say."""
        given = config.generation
        return self.with_settings(
            generation={
                "num_beams": given.beams, "max_new_tokens": given.longest, "length_penalty": given.length_penalty,
                "no_repeat_ngram_size": given.no_repeat,
            }
        )  # fmt: skip

    def document(self, values: Mapping[str, Any]) -> Example:
        """Read a text, or a list of sentences, joined by spaces. Raises DataError for anything else."""
        return Example((" ".join(read_document(values[self.text_column], self.text_column).texts),))

    def as_lines(self, summary: str) -> str:
        """Cut a summary into sentences, one a line."""
        starts = sentence_starts(summary)
        ends = [*starts[1:], len(summary)]
        return "\n".join(summary[start:end].strip() for start, end in zip(starts, ends, strict=True))

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
        raise DataError(
            f"explain: the answers of task {self.name} are text, no number that words add to; explain a run of another task"
        )

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute ROUGE-1, 2, L and Lsum of the summaries, against the reference with the best ROUGE-1."""
        pairs = zip(outputs, targets, strict=True)
        return mean_rouge((self.rouge(_text(ids, goal.tokenizer), goal.references) for ids, goal in pairs), resamples)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """List the summaries with the least ROUGE-1."""
        return {"mistakes": self.worst(measurement)}

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show the worst summaries."""
        return Shown(tables=cls.worst_table(split))


def _text(ids: Any, tokenizer: "Tokenizer") -> str:
    return tokenizer.decode([int(token) for token in ids if token >= 0], skip_special_tokens=True).strip()
