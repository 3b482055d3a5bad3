"""Summarises a document by its own most telling sentences (extractive; Liu 2019: Fine-tune BERT for extractive summarization).

    [CLS] sentence [SEP] sentence [SEP] ...        windows of whole sentences; a sentence's logit z is that of its [SEP]
    loss    mean over sentences of the cross-entropy of sigmoid(z) and its target
    target  share of the reference summaries whose greedy oracle holds the sentence (tasks/metrics/rouge.py)
    answer  sentences by falling z, until there are enough, without repetition (tasks/selection.py)

Summaries are as long as the mean oracle of the training documents, in sentences, unless told otherwise (`summary.*`). An answer's
offsets are characters of the document as it was given, or of its sentences joined by spaces.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilora.batching.rows import Rows, rows_of
from distilora.batching.tokens import Tokenised
from distilora.config.schema import Redundancy, RunConfig
from distilora.data.alignment import align
from distilora.data.cleaning import Cleaning
from distilora.data.examples import Example, Examples
from distilora.data.fragments import sentence_starts
from distilora.errors import ConfigError, DataError
from distilora.progress import Progress, say
from distilora.tasks.base import Measurement, Outputs, Task
from distilora.tasks.metrics.rouge import MEASURES, oracle
from distilora.tasks.registry import register
from distilora.tasks.selection import choose
from distilora.tasks.showing import Histogram, Shown, Table
from distilora.tasks.summaries import SummaryTask, joined_spans, mean_rouge, read_document
from distilora.tasks.token_outputs import Places, TokenTask, numbered

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

BATCH = 256  # documents per call of the tokenizer
SENTENCES = 3  # of a summary before training has told


@dataclass(frozen=True)
class Goal:
    """Target of a document: each sentence's, [S], and what its summary is compared with."""

    targets: NDArray[np.float32]
    sentences: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] = field(repr=False)


@register
class Summarization(SummaryTask, TokenTask):
    """Extractive summarisation.

    A summary has `words` words at most, one sentence at least; where that is None, `sentences` sentences, which None leaves to the
    training documents.
    """

    name = "summarization"
    outputs = 1
    answers_with = "sentences"
    section = "summary"

    def __init__(
        self,
        text_column: str = "text",
        label_column: str | None = "summaries",
        sentences: int | None = None,
        words: int | None = None,
        redundancy: Redundancy = "trigrams",
    ) -> None:
        self.text_column, self.label_column = text_column, label_column
        self.sentences, self.words, self.redundancy = sentences, words, redundancy

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, length of a summary, and how repetition is avoided."""
        return {
            "text_column": self.text_column, "label_column": self.label_column, "sentences": self.sentences,
            "words": self.words, "redundancy": self.redundancy,
        }  # fmt: skip

    @property
    def phrase(self) -> str:
        """The task in words."""
        return "extractive summarisation"

    def with_length(self, sentences: int | None = None, words: int | None = None) -> "Summarization":
        """Return the task for summaries of another length. Raises ConfigError for less than one sentence or word."""
        for name, value in (("sentences", sentences), ("words", words)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}: {value} given, at least 1 wanted")
        return self.with_settings(sentences=sentences or self.sentences, words=words)

    def configured(self, config: RunConfig) -> Task:
        """Return the task for summaries as the run's settings want them."""
        given = config.summary
        return self.with_settings(sentences=given.sentences, words=given.words, redundancy=given.redundancy)

    def document(self, values: Mapping[str, Any]) -> Example:
        """Read a text, or a list of sentences. Raises DataError for anything else."""
        return read_document(values[self.text_column], self.text_column)

    def cleaned(self, example: Example, cleaning: Cleaning) -> Example:
        """Clean the text and cut it into sentences, or clean those that are given; keep their spans, and drop blank ones."""
        texts, spans = [], []
        for part, (start, _) in zip(example.texts, example.origin or ((0, 0),), strict=True):
            aligned = align(part, cleaning)
            cuts = sentence_starts(aligned.text) if example.origin is None else [0]
            for first, last in zip(cuts, [*cuts[1:], len(aligned.text)], strict=True):
                sentence = aligned.text[first:last].strip()
                if sentence:
                    begin = first + aligned.text[first:last].index(sentence)
                    own = aligned.in_original(begin, begin + len(sentence))
                    texts.append(sentence)
                    spans.append((start + own[0], start + own[1]))
        return replace(example, texts=tuple(texts or [""]), origin=tuple(spans or [(0, 0)]))

    def check(self, examples: Examples) -> None:
        """Raise DataError if every document is a single sentence."""
        if all(len(example.texts) < 2 for example in examples.items):
            raise DataError(
                f"data.text_column: every document of {examples.split} is one sentence; there is nothing to choose"
            )

    def learnt_from(self, train: Examples) -> Task:
        """Return the task for summaries as long as the mean oracle of the training documents, unless a length is given."""
        if self.sentences is not None or self.words is not None:
            return self
        lengths = [len(oracle(e.texts, reference)) for e in train.items for reference in e.target[:1]]
        mean = max(round(float(np.mean([length for length in lengths if length] or [1]))), 1)
        say(
            f"summaries of {mean} sentence{'s' if mean > 1 else ''}, as the best choice in the training documents has on average"
        )
        return self.with_settings(sentences=mean)

    def tokenise(self, tokenizer: "Tokenizer", examples: Sequence[Example], label: str = "") -> Tokenised:
        """Pack the sentences of each document into windows; a sentence that is longer than one is cut."""
        begin, end = _frame(tokenizer)
        longest = (tokenizer.truncation or {"max_length": 512})["max_length"] - 2
        rows: list[list[list[int]]] = []
        truncated = np.zeros(len(examples), bool)
        with Progress(label, len(examples)) as bar:
            for start in range(0, len(examples), BATCH):
                batch = examples[start : start + BATCH]
                encodings = iter(
                    tokenizer.encode_batch([text for e in batch for text in e.texts], add_special_tokens=False)
                )
                for number, example in enumerate(batch, start):
                    sentences = []
                    for encoding in (next(encodings) for _ in example.texts):
                        ids = [token for token in encoding.ids if token != end]
                        truncated[number] |= len(ids) > longest or bool(encoding.overflowing)
                        sentences.append([*ids[:longest], end])
                    rows.append(_packed(sentences, begin, longest + 2))
                bar.add(len(batch))
        return Tokenised(rows_of(rows), truncated)

    def places(self, rows: Rows) -> Places:
        """Choose the token that ends each sentence."""
        end = np.repeat(rows.ids[rows.offsets[1:] - 1], rows.lengths)
        token = np.flatnonzero(np.asarray(rows.ids) == end)
        return numbered(token, np.repeat(rows.group, rows.lengths)[token])

    def targets(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[Any]:
        """Return for each document the share of its references whose oracle holds each sentence."""
        goals = []
        for example in examples:
            share = np.zeros(len(example.texts), np.float32)
            for reference in example.target:
                share[oracle(example.texts, reference)] += 1 / len(example.target)
            goals.append(Goal(share, example.texts, tuple(example.target)))
        return goals

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the mean over a document's sentences of the cross-entropy, [G]."""
        import torch

        goal = torch.zeros(outputs.shape[:2], device=outputs.device)
        inside = torch.zeros_like(goal)
        for row, of_document in enumerate(targets):
            count = len(of_document.targets)
            goal[row, :count] = torch.from_numpy(of_document.targets).to(goal.device)
            inside[row, :count] = 1
        losses = torch.nn.functional.binary_cross_entropy_with_logits(outputs[..., 0].float(), goal, reduction="none")
        return (losses * inside).sum(1) / inside.sum(1)

    def choose(self, logits: NDArray[np.float32], sentences: Sequence[str]) -> list[int]:
        """Choose a document's summary: numbers of its sentences, in order; from outputs [S or more, 1]."""
        return choose(logits[:, 0], sentences, self.sentences or SENTENCES, self.words, self.redundancy)

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into `summary`, a sentence a line, their numbers from 0, `sentences`, and `spans`, both lists in JSON."""
        answers = []
        for logits, example in zip(outputs, examples, strict=True):
            chosen = self.choose(logits, example.texts)
            spans = example.origin or joined_spans(example.texts)  # without cleaning, as in a check
            answers.append(
                {
                    "summary": "\n".join(example.texts[number] for number in chosen),
                    "sentences": json.dumps(chosen),
                    "spans": json.dumps([list(spans[number]) for number in chosen]),
                }
            )
        return answers

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of documents whose likeliest sentence is the same."""
        return float(np.mean(ours[:, :, 0].argmax(axis=1) == theirs[:, :, 0].argmax(axis=1)))

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Raise DataError: a summary is no number."""
        raise DataError(
            f"explain: the answers of task {self.name} are sentences of the text itself; see their places in an answer's spans"
        )

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute ROUGE-1, 2, L and Lsum of the summaries, against the reference with the best ROUGE-1."""
        chosen = [self.choose(logits, goal.sentences) for logits, goal in zip(outputs, targets, strict=True)]
        scores = [self._rouge(of, g.sentences, g.references) for of, g in zip(chosen, targets, strict=True)]
        return mean_rouge(scores, resamples)

    def _rouge(self, chosen: Sequence[int], sentences: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return self.rouge("\n".join(sentences[number] for number in chosen), references)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Measure the first sentences and the oracle beside the model, and list the worst summaries."""
        lead, best, positions = [], [], []
        for item, answer in zip(measurement.examples.items, measurement.answers, strict=True):
            first = -np.arange(len(item.texts), dtype=np.float32)
            as_long = choose(first, item.texts, self.sentences or SENTENCES, self.words, "none")
            lead.append(self._rouge(as_long, item.texts, item.target))
            oracles = [self._rouge(oracle(item.texts, of), item.texts, item.target) for of in item.target]
            best.append(max(oracles, key=lambda scores: scores["rouge1"]))
            positions.append(json.loads(answer["sentences"])[0] / max(len(item.texts), 1))
        measurement.figures["positions"] = np.histogram(positions, bins=10, range=(0, 1))[0].tolist()
        beside = {"lead": mean_rouge(lead), "oracle": mean_rouge(best)}
        own, of_lead = (scores["rouge1"] for scores in (measurement.metrics, beside["lead"]))
        return {
            "verdict": ""
            if own["value"] > of_lead["value"]
            else f"The model is no better than the first sentences, whose ROUGE-1 is {100 * of_lead['value']:.2f}.",
            "beside": {name: {of: metric["value"] for of, metric in rouge.items()} for name, rouge in beside.items()},
            "mistakes": self.worst(measurement),
        }

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say what the first sentences and the best choice would reach."""
        return _beside(splits[0])

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Say what the first sentences and the best choice would reach."""
        return ["", *(f"  {line}" for line in _beside(split))]

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Show lead and oracle beside the model, where summaries begin, and the worst ones."""
        tables = []
        if beside := split.get("beside"):
            rows = [
                (name, *(f"{100 * figures[measure]:.2f}" for measure in MEASURES))
                for name, figures in (
                    ("first sentences", beside["lead"]),
                    ("model", {measure: split["metrics"][measure]["value"] for measure in MEASURES}),
                    ("oracle", beside["oracle"]),
                )
            ]
            tables.append(Table("ROUGE beside the first sentences and the best choice", ("summary", *MEASURES), rows))
        counts = split["figures"].get("positions")
        pictures = (
            [Histogram("Where in the document summaries begin", counts, "share of the document before")]
            if counts
            else []
        )
        return Shown((), pictures, [*tables, *cls.worst_table(split)])


def _packed(sentences: Sequence[list[int]], begin: int, longest: int) -> list[list[int]]:
    """Pack sentences into rows of at most `longest` tokens, each with `begin` in front."""
    rows = [[begin]]
    for sentence in sentences:
        if len(rows[-1]) > 1 and len(rows[-1]) + len(sentence) > longest:
            rows.append([begin])
        rows[-1] += sentence
    return rows


def _frame(tokenizer: "Tokenizer") -> tuple[int, int]:
    """Return the special tokens that a text begins and ends with. Raises DataError if it has none."""
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise DataError(
            "task summarization needs an encoder whose texts begin and end with a special token, as BERT's do"
        )
    return ids[0], ids[1]


def _beside(split: Mapping[str, Any]) -> list[str]:
    if "beside" not in split:
        return []
    lead, best = (100 * split["beside"][name]["rouge1"] for name in ("lead", "oracle"))
    return [f"The first sentences would have a ROUGE-1 of {lead:.2f}, the best choice of sentences one of {best:.2f}."]
