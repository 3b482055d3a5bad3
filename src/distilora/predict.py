"""Prediction: artifact + tokenizer + plan + backend + decode. Imports no torch; only the torch backend does.

    text -> cleaning -> tokens -> rows -> plan -> backend -> outputs / temperature -> task.decode -> answer

Answers come in input order, however the plan grouped the texts. In a stream the next few hundred texts are tokenised
while the last are computed, and a text that occurred before is not computed again.
"""

import hashlib
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact
from distilora.backends import Backend, open_backend
from distilora.cleaning import cleaning
from distilora.config import BackendName, Base, Device, InferencePrecision
from distilora.errors import ConfigError, DataError
from distilora.examples import Example
from distilora.find_model import find_model
from distilora.lanes import run_rows
from distilora.progress import Progress
from distilora.tables import Record, TableWriter, format_of, read_stream, read_table
from distilora.tasks import Task, restore
from distilora.tokens import Tokenised, read_tokenizer, tokenise, with_truncation

STREAM = 512  # records tokenised together when streaming; twice as many are held
REMEMBERED = 65_536  # texts of a stream whose outputs are kept, in case they occur again


class Predictor:
    """A loaded model. `predictor("text")` gives one answer, `predictor([...])` a list, of an iterator an iterator.

    An answer is what the task decodes (of a classification `label`, its calibrated probability `score`, `p_LABEL` of every
    label), `truncated`: whether the text was longer than the model reads, and `abstain`: whether the score is below
    `abstain_below`, so that somebody else should decide (Chow 1970; without a score never).
    """

    def __init__(
        self, artifact: Artifact, backend: Backend, task: Task | None = None, abstain_below: float = 0.0
    ) -> None:
        if not 0 <= abstain_below <= 1:
            raise ConfigError(f"abstain_below: {abstain_below!r} given, a probability from 0 to 1 wanted")
        self.abstain_below = abstain_below
        self.artifact = artifact
        self.backend = backend
        self.task = task or restore(artifact.task["name"], artifact.task["settings"])
        self.tokenizer = read_tokenizer(artifact.folder / "tokenizer.json")
        if self.tokenizer.truncation is None:  # a model that is not ours
            with_truncation(self.tokenizer, artifact.max_length, "right")
        self.clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean

    def __call__(self, texts: str | Iterable[str]) -> Any:
        """Answers to one text (a dict), a sequence (a list) or any other iterable (an iterator, see `stream`).

        Raises DataError for a blank text or one that is not text.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
            raise DataError(f"texts: {type(texts).__name__} given, a text or several wanted")
        if not isinstance(texts, Sequence):
            return self.stream(texts)
        examples = [self.example(text, f"text {i}") for i, text in enumerate(texts, 1)]
        chunks = (examples[start : start + STREAM] for start in range(0, len(examples), STREAM))
        return [answer for answers in self.answers(chunks) for answer in answers]

    def answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Answers to cleaned examples, in order."""
        return next(self.answers([examples]))

    def answers(self, chunks: Iterable[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        """Answers to cleaned examples, chunk by chunk; the next chunk is read and tokenised while one is computed."""
        once, iterator = _Once(), iter(chunks)
        waiting: tuple[Sequence[Example], list[_Known], list[_Known], Future[Tokenised]] | None = None
        with ThreadPoolExecutor(1) as tokeniser:
            while True:
                try:
                    examples = next(iterator, None)
                except Exception:
                    if waiting:  # what was read whole is answered first
                        yield self._answered(*waiting)
                    raise
                last = waiting
                if examples is not None:
                    known, new, fresh = once.look_up(examples)
                    if last:
                        coming = tokeniser.submit(tokenise, self.tokenizer, fresh)
                    else:  # nothing to do meanwhile, and a single text would wait for the thread
                        coming = Future()
                        coming.set_result(tokenise(self.tokenizer, fresh))
                    waiting = examples, known, new, coming
                if last:
                    yield self._answered(*last)
                if examples is None:
                    return

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Answers to any number of texts, in order, holding about a thousand at a time."""
        if isinstance(texts, str):
            raise DataError("texts: one text given, several wanted; call the predictor with it")
        iterator = iter(texts)

        def chunks() -> Iterator[list[Example]]:
            number = 0
            while chunk := list(islice(iterator, STREAM)):
                yield [self.example(text, f"text {number + i}") for i, text in enumerate(chunk, 1)]
                number += len(chunk)

        for answers in self.answers(chunks()):
            yield from answers

    def _answered(
        self, examples: Sequence[Example], known: "list[_Known]", new: "list[_Known]", coming: Future[Tokenised]
    ) -> list[dict[str, Any]]:
        rows, truncated = coming.result()
        if new:
            for text, outputs, cut in zip(new, run_rows(rows, self.backend, lanes=True), truncated, strict=True):
                text.outputs, text.truncated = outputs, bool(cut)
        if not examples:
            return []
        outputs = np.stack([text.outputs for text in known]) / self.artifact.temperature
        answers = self.task.decode(outputs, examples)
        return [
            {**answer, "truncated": text.truncated, "abstain": answer.get("score", 1.0) < self.abstain_below}
            for answer, text in zip(answers, known, strict=True)
        ]

    def example(self, text: Any, place: str) -> Example:
        """The cleaned example of a text. Raises DataError, naming `place`, if it is blank or not text."""
        if not isinstance(text, str):
            raise DataError(f"{place}: {type(text).__name__} given, text wanted")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: character {error.start + 1} is not UTF-8; correct the text") from None
        column = getattr(self.task, "text_column", "text")
        example = unlabelled(self.task, {column: text}, None).read({column: text})
        cleaned = tuple(self.clean(part) for part in example.texts)
        if not any(part.strip() for part in cleaned):
            raise DataError(f"{place}: the text is blank; give one with words")
        return Example(cleaned, place=place)


class _Known:
    """What is known of a text: its outputs before the temperature, [...], and whether it was cut."""

    __slots__ = ("outputs", "truncated")
    outputs: NDArray[np.float32]
    truncated: bool


class _Once:
    """Texts of a stream by their SHA-256, the latest REMEMBERED of them, so that none is computed twice."""

    def __init__(self) -> None:
        self._texts: OrderedDict[bytes, _Known] = OrderedDict()

    def look_up(self, examples: Sequence[Example]) -> tuple[list[_Known], list[_Known], list[Example]]:
        """What is known of each example; of these, what is new and has to be computed, and its examples."""
        known, new, fresh = [], [], []
        for example in examples:
            key = hashlib.sha256("\0".join(example.texts).encode()).digest()
            text = self._texts.get(key)
            if text is None:
                text = self._texts[key] = _Known()
                new.append(text)
                fresh.append(example)
                if len(self._texts) > REMEMBERED:
                    self._texts.popitem(last=False)
            known.append(text)
        return known, new, fresh


def load(
    path: str | Path,
    precision: InferencePrecision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
    abstain_below: float = 0.0,
    backend: BackendName = "auto",
) -> Predictor:
    """A predictor from a run's folder, its model/, an exported folder, a Transformers classifier, or the Hub's name of one.

    `backend` auto is onnx for a folder that holds an ONNX graph, else torch; `precision` auto is what the export's parity
    gate chose, and for a run bf16 where the processor computes in it.

    `encoder` says where the encoder lies now, if not where it lay in training; it must be the same one (SHA-256).
    `base` is what a qlora run's adapter is put on: '4bit', as in training (auto), or 'full', the full-precision encoder.
    Answers with a score under `abstain_below` say `abstain`.

    On a CPU the torch backend has glibc keep freed memory, for the whole process and from then on (hardware.py).

    Raises ArtifactError if the model is damaged, MissingExtra without the backend's package, ConfigError if the model is not
    to be had so, EncoderError without its encoder.
    """
    artifact = find_model(path)
    return Predictor(
        artifact, open_backend(artifact, precision, device, encoder, base, backend), abstain_below=abstain_below
    )


def predict_table(
    predictor: Predictor,
    source: str,
    output: str,
    *,
    input_format: str | None = None,
    text_column: str | None = None,
    strict: bool = False,
) -> dict[str, int]:
    """Streams a table through the model and writes it with the answer's columns added; order is kept.

    A blank text gets null answers (an error under `strict`). `source` '-' is standard input, in `input_format`.
    Returns counts of rows and blank rows. Raises DataError naming the row; then nothing is left at `output`.
    """
    counts = {"rows": 0, "blank": 0}
    if source != "-":
        read = read_table(source)
        if input_format is not None and input_format != format_of(source):
            raise DataError(f"--input-format: {input_format} given, but {source} is {format_of(source)}; drop it")
    else:
        read = read_stream(sys.stdin.buffer, input_format or "txt", "standard input")
    names: dict[str, str] = {}
    sample: dict[str, Any] = {}
    read_so_far: deque[tuple[list[Record], list[bool]]] = deque()

    def chunks() -> Iterator[list[Example]]:
        while chunk := list(islice(read, STREAM)):
            examples, blank = _read_examples(predictor, chunk, text_column, strict)
            read_so_far.append((chunk, blank))
            yield examples

    with TableWriter(output) as out, Progress("predicting", None, "rows") as bar:
        for answers in predictor.answers(chunks()):
            chunk, blank = read_so_far.popleft()
            if not sample:
                sample = answers[0] if answers else predictor.answer([Example(("blank",))])[0]
                names = {name: f"predicted_{name}" if name in chunk[0].values else name for name in sample}
            taken = set(names.values())
            if clash := next((r for r in chunk if taken & set(r.values)), None):
                raise DataError(
                    f"{clash.place}: column {(taken & set(clash.values)).pop()!r} is an answer's; rename it"
                )
            empty, given = dict.fromkeys(sample), iter(answers)
            rows = [(record, empty if nothing else next(given)) for record, nothing in zip(chunk, blank, strict=True)]
            out.write(
                [{**record.values, **{names[k]: v for k, v in answer.items()}} for record, answer in rows],
                like={names[k]: v for k, v in sample.items()},
            )
            counts["rows"] += len(chunk)
            counts["blank"] += sum(blank)
            bar.add(len(chunk))
        if not counts["rows"]:
            raise DataError(f"{source}: no records; give a file with some")
    return counts


def _read_examples(
    predictor: Predictor, records: Sequence[Record], text_column: str | None, strict: bool
) -> tuple[list[Example], list[bool]]:
    """The cleaned example of each record whose text is not blank, and which are blank."""
    task = unlabelled(predictor.task, records[0].values, text_column)
    examples: list[Example] = []
    blank: list[bool] = []
    for record in records:
        try:
            example = task.read(record.values)
        except DataError as error:
            raise DataError(f"{record.place}: {error}") from None
        texts = tuple(predictor.clean(text) for text in example.texts)
        blank.append(not any(text.strip() for text in texts))
        if not blank[-1]:
            examples.append(Example(texts, place=record.place))
        elif strict:
            raise DataError(f"{record.place}: the text is blank; fill it, or drop --strict to leave its answer empty")
    return examples, blank


def unlabelled(task: Task, columns: Mapping[str, Any], text_column: str | None) -> Task:
    """The task, set to read the text column found or given and no label, if it has such columns."""
    from distilora.tasks.classification import TEXT_COLUMNS, Classification, find_column

    if not isinstance(task, Classification):
        return task
    wanted = text_column or (task.text_column if task.text_column in columns else None)
    return Classification(task.labels, find_column(columns, wanted, TEXT_COLUMNS, "text-column"), None)
