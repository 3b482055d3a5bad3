"""Summarises a document by its own most telling sentences (extractive; Liu 2019: Fine-tune BERT for extractive summarization).

    [CLS] sentence [SEP] sentence [SEP] ...        windows of whole sentences; a sentence's logit z is that of its [SEP]
    loss    mean over sentences of the cross-entropy of sigmoid(z) and its target
    target  share of the reference summaries whose greedy oracle holds the sentence (tasks/metrics/rouge.py)
    answer  sentences by falling z, until there are enough; one that shares a trigram with those chosen is passed over

Summaries are as long as the mean oracle of the training documents, in sentences, unless told otherwise (`with_length`). An answer's
offsets are characters of the document as it was given, or of its sentences joined by spaces.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from distilora.batching.rows import Rows, rows_of
from distilora.batching.tokens import Tokenised
from distilora.config.schema import DataConfig, SourceConfig
from distilora.data.alignment import align
from distilora.data.cleaning import Cleaning
from distilora.data.examples import Example, Examples
from distilora.data.fragments import sentence_starts
from distilora.data.sources import Source
from distilora.errors import ConfigError, DataError
from distilora.files.tables import Record
from distilora.progress import Progress, say
from distilora.tasks.base import Measurement, Outputs, Remeasured, Task
from distilora.tasks.columns import find_column, refuse_label_columns
from distilora.tasks.metrics.rouge import MEASURES, oracle, rouge, words_of
from distilora.tasks.registry import register
from distilora.tasks.showing import Histogram, Shown, Table
from distilora.tasks.token_outputs import Places, TokenTask, numbered

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

DOCUMENTS = ("sentences", "document", "source", "article", "abstract", "text", "body", "review", "content")
SUMMARIES = ("summaries", "summary", "highlights", "target", "tldr")
BATCH = 256  # documents per call of the tokenizer
EXCERPT = 600  # characters of a document in the report


@dataclass(frozen=True)
class Goal:
    """Target of a document: each sentence's, [S], and what its summary is compared with."""

    targets: NDArray[np.float32]
    sentences: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] = field(repr=False)


@register
class Summarization(TokenTask):
    """Extractive summarisation; a summary has `sentences` sentences, or as many as fit into `words` words, one at least."""

    name = "summarization"
    outputs = 1
    pipeline_tag = "summarization"
    example = "--input long_review.txt"
    reads_documents = True
    headlines = ("rouge1", "rouge2", "rougeL")

    def __init__(
        self,
        document_column: str = "text",
        summaries_column: str | None = "summaries",
        sentences: int = 3,
        words: int | None = None,
        redundancy: str = "trigrams",
    ) -> None:
        self.document_column, self.summaries_column = document_column, summaries_column
        self.text_column, self.label_column = document_column, summaries_column
        self.sentences, self.words, self.redundancy = sentences, words, redundancy

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Columns, length of a summary, and how repetition is avoided."""
        return {
            "document_column": self.document_column, "summaries_column": self.summaries_column, "sentences": self.sentences,
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
        return self._with(sentences=sentences or self.sentences, words=words)

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task with the columns of the training split. Raises DataError or ConfigError naming the field at fault."""
        refuse_label_columns(config, cls.name)
        if config.truncation_side != "right":
            raise ConfigError(
                f"data.truncation_side: {config.truncation_side} given, but task {cls.name} reads documents in windows; drop it"
            )
        if config.labels is not None:
            raise ConfigError(f"data.labels: given, but task {cls.name} answers with sentences; drop it")
        first = next(iter(source.records(config.train_split, "data.train_split")), None)
        if first is None:
            raise DataError(f"data.train_split: {source.name} {config.train_split} has no records; give another")
        document = find_column(first.values, config.text_column, DOCUMENTS, "data.text_column")
        others = [name for name in first.values if name != document]
        summaries = find_column(others, config.label_column, SUMMARIES, "data.label_column")
        say(f"data: documents from column {document!r}, summaries from {summaries!r}")
        return cls(document, summaries)

    def read(self, values: Mapping[str, Any]) -> Example:
        """Read a document, a text or a list of its sentences, and its summaries. Raises DataError for anything else."""
        if self.document_column not in values:
            raise DataError(
                f"data.text_column: no column {self.document_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        example = read_document(values[self.document_column], self.document_column)
        if self.summaries_column is None:
            return example
        if self.summaries_column not in values:
            raise DataError(
                f"data.label_column: no column {self.summaries_column!r} (columns: {', '.join(map(str, values))}); name one"
            )
        return replace(example, target=read_summaries(values[self.summaries_column], self.summaries_column))

    def read_text(self, text: str) -> Example:
        """Read a document without summaries."""
        return read_document(text, self.document_column)

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

    def _with(self, **settings: Any) -> "Summarization":
        return Summarization(**{**self.settings, **settings})

    def check(self, examples: Examples) -> None:
        """Raise DataError if every document is a single sentence."""
        if all(len(example.texts) < 2 for example in examples.items):
            raise DataError(
                f"data.text_column: every document of {examples.split} is one sentence; there is nothing to choose"
            )

    def learnt_from(self, train: Examples) -> Task:
        """Return the task for summaries as long as the mean oracle of the training documents, in sentences."""
        lengths = [len(oracle(e.texts, reference)) for e in train.items for reference in e.target[:1]]
        mean = round(float(np.mean([length for length in lengths if length] or [1])))
        say(
            f"summaries of {mean} sentence{'s' if mean > 1 else ''}, as the best choice in the training documents has on average"
        )
        return self._with(sentences=max(mean, 1))

    def target_name(self, target: Any) -> Any:
        """Return the summaries as a list in JSON; None without any."""
        return None if target is None else json.dumps(list(target), ensure_ascii=False)

    def strata(self, targets: Sequence[Any]) -> list[Any]:
        """Return one stratum for all."""
        return [0] * len(targets)

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
        chosen: list[int] = []
        trigrams: set[tuple[str, ...]] = set()
        left = self.words
        for number in np.argsort(-np.asarray(logits[: len(sentences), 0]), kind="stable").tolist():
            words = words_of(sentences[number])
            own = set(zip(words, words[1:], words[2:], strict=False))
            if chosen and (own & trigrams if self.redundancy == "trigrams" else False):
                continue
            if chosen and left is not None and len(words) > left:
                continue
            chosen.append(number)
            trigrams |= own
            left = None if left is None else left - len(words)
            if (left is None and len(chosen) == self.sentences) or (left is not None and left <= 0):
                break
        return sorted(chosen)

    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode logits into `summary`, a sentence a line, their numbers from 0, `sentences`, and `spans`, both lists in JSON."""
        answers = []
        for logits, example in zip(outputs, examples, strict=True):
            chosen = self.choose(logits, example.texts)
            spans = example.origin or _joined(example.texts)  # without cleaning, as in a check
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
            f"explain: the answers of task {self.name} are sentences of the text, chosen by their logits alone"
        )

    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute ROUGE-1, 2, L and Lsum of the summaries, against the reference with the best ROUGE-1."""
        return rouge_metrics(
            [self._rouge(logits, goal) for logits, goal in zip(outputs, targets, strict=True)], resamples
        )

    def _rouge(self, logits: NDArray[np.float32], goal: Goal) -> dict[str, float]:
        chosen = self.choose(logits, goal.sentences)
        return rouge("\n".join(goal.sentences[number] for number in chosen), goal.references)

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Measure the first sentences and the oracle beside the model, and list the worst summaries."""
        items, answers = measurement.examples.items, measurement.answers
        lead, best, own = [], [], []
        for item, answer in zip(items, answers, strict=True):
            references = [oracle(item.texts, reference) for reference in item.target]
            choices = ["\n".join(item.texts[i] for i in chosen) for chosen in references]
            lead.append(rouge("\n".join(item.texts[: self.sentences]), item.target))
            best.append(max((rouge(choice, item.target) for choice in choices), key=lambda scores: scores["rouge1"]))
            own.append(rouge("\n".join(item.texts[i] for i in json.loads(answer["sentences"])), item.target))
        worst = np.argsort([scores["rouge1"] for scores in own], kind="stable")[: measurement.max_mistakes].tolist()
        first = [
            json.loads(answer["sentences"])[0] / max(len(i.texts), 1) for i, answer in zip(items, answers, strict=True)
        ]
        measurement.figures["positions"] = np.histogram(first, bins=10, range=(0, 1))[0].tolist()
        return {
            "beside": {
                "lead": {name: metric["value"] for name, metric in rouge_metrics(lead, 0).items()},
                "oracle": {name: metric["value"] for name, metric in rouge_metrics(best, 0).items()},
            },
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

        scores = [rouge(row["summary"], json.loads(row["target"])) for row in predictions]
        values = {name: np.asarray([score[name] for score in scores]) for name in MEASURES}
        return Remeasured(
            {name: float(of.mean()) for name, of in values.items()},
            {name: resampled_mean(of, resamples) for name, of in values.items()},
            values["rouge1"],
            None,
        )

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
        if split.get("mistakes"):
            worst = [(row["target"], row["answer"], row["text"]) for row in split["mistakes"]]
            columns = ("reference", "summary", "document")
            tables.append(Table("The summaries with the least ROUGE-1", columns, worst, text=("document",)))
        counts = split["figures"].get("positions")
        pictures = (
            [Histogram("Where in the document summaries begin", counts, "share of the document before")]
            if counts
            else []
        )
        return Shown((), pictures, tables)


def read_document(value: Any, column: str) -> Example:
    """Read a text as it is, or a list of sentences with their spans as `origin`. Raises DataError for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # else a text that begins with a bracket
            value = json.loads(value)
    if value is None or isinstance(value, str):
        return Example((value or "",))
    if not isinstance(value, list | tuple) or not all(isinstance(sentence, str) for sentence in value):
        raise DataError(
            f"data.text_column: {column!r} holds {type(value).__name__}; a text or a list of sentences is wanted"
        )
    return Example(tuple(value), origin=_joined(value))


def rouge_metrics(scores: Sequence[Mapping[str, float]], resamples: int) -> dict[str, Any]:
    """Compute the mean of each measure over documents, with its interval if `resamples` > 0."""
    from distilora.tasks.metrics.bootstrap import interval, resampled_mean

    measured = {}
    for name in MEASURES:
        values = np.asarray([score[name] for score in scores])
        low, high = interval(resampled_mean(values, resamples)) if resamples else (None, None)
        measured[name] = {"value": float(values.mean()), "low": low, "high": high}
    return measured


def _joined(sentences: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the spans of sentences that are joined by spaces."""
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences]).tolist()
    return tuple((end - 1 - len(sentence), end - 1) for sentence, end in zip(sentences, ends, strict=True))


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


def read_summaries(value: Any, column: str) -> tuple[str, ...]:
    """Read a summary, or a list of them. Raises DataError for anything else, and without one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # else a summary that begins with a bracket
            value = json.loads(value)
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(text, str) for text in found) or not any(text.strip() for text in found):
        raise DataError(f"data.label_column: {column!r} holds {value!r:.60}; a summary or a list of them is wanted")
    return tuple(text for text in found if text.strip())
