"""Prediction: artifact + tokenizer + plan + backend + decode. Imports no torch; only the torch backend does.

    text -> cleaning -> tokens -> rows -> plan -> backend -> outputs / temperature -> task.decode -> answer

Answers come in input order, however the plan grouped the texts.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact, read_artifact
from distilora.backends import Backend, open_backend
from distilora.cleaning import cleaning
from distilora.config import Base, Device, Precision
from distilora.errors import DataError
from distilora.examples import Example
from distilora.plan import plan
from distilora.progress import Progress
from distilora.rows import Rows
from distilora.tables import Record, TableWriter, format_of, read_stream, read_table
from distilora.tasks import Task, restore
from distilora.tokens import read_tokenizer, tokenise

STREAM = 512  # records held at a time when streaming


def run_rows(rows: Rows, backend: Backend, token_budget: int | None = None, label: str = "") -> NDArray[np.float32]:
    """Outputs [G, ...] of all rows' examples, in input order, whatever micro-batches the plan makes.

    `token_budget` None takes the backend's. Raises ValueError without rows.
    """
    outputs: NDArray[np.float32] | None = None
    with Progress(label, rows.groups) as bar:
        for update in plan(rows.group_lengths, token_budget or backend.token_budget):
            for batch in update:
                some = backend.run(rows.take(batch))
                if outputs is None:
                    outputs = np.empty((rows.groups, *some.shape[1:]), np.float32)
                outputs[batch] = some
                bar.add(len(batch))
    if outputs is None:
        raise ValueError("no rows to run")
    return outputs


class Predictor:
    """A loaded model. `predictor("text")` gives one answer, `predictor([...])` a list, `stream(...)` an iterator.

    An answer is what the task decodes, and `truncated`: whether the text was longer than the model reads.
    """

    def __init__(self, artifact: Artifact, backend: Backend, task: Task | None = None) -> None:
        self.artifact = artifact
        self.backend = backend
        self.task = task or restore(artifact.task["name"], artifact.task["settings"])
        self.tokenizer = read_tokenizer(artifact.folder / "tokenizer.json")
        self.clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean

    def __call__(self, texts: str | Sequence[str]) -> Any:
        """Answers to one text or several. Raises DataError for a blank text or one that is not text."""
        if isinstance(texts, str):
            return self([texts])[0]
        return self.answer([self._example(text, f"text {i}") for i, text in enumerate(texts, 1)])

    def answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Answers to cleaned examples, in order."""
        if not examples:
            return []
        rows, truncated = tokenise(self.tokenizer, examples)
        outputs = run_rows(rows, self.backend) / self.artifact.temperature
        answers = self.task.decode(outputs, examples)
        return [{**answer, "truncated": bool(cut)} for answer, cut in zip(answers, truncated, strict=True)]

    def stream(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Answers to any number of texts, in order, holding a few hundred at a time."""
        iterator = iter(texts)
        number = 0
        while chunk := list(islice(iterator, STREAM)):
            yield from self.answer([self._example(text, f"text {number + i}") for i, text in enumerate(chunk, 1)])
            number += len(chunk)

    def _example(self, text: Any, place: str) -> Example:
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


def load(
    path: str | Path,
    precision: Precision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
) -> Predictor:
    """A predictor from a run's folder, its model/, or a merged model's folder.

    `encoder` says where the encoder lies now, if not where it lay in training; it must be the same one (SHA-256).
    `base` is what a qlora run's adapter is put on: '4bit', as in training (auto), or 'full', the full-precision encoder.

    Raises ArtifactError if the model is damaged, MissingExtra without torch, EncoderError without its encoder.
    """
    artifact = read_artifact(path)
    return Predictor(artifact, open_backend(artifact, precision, device, encoder, base))


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
    with TableWriter(output) as out, Progress("predicting", None, "rows") as bar:
        while chunk := list(islice(read, STREAM)):
            answers, sample = _answer_records(predictor, chunk, text_column, strict)
            if not names:
                names = {name: f"predicted_{name}" if name in chunk[0].values else name for name in sample}
            taken = set(names.values())
            if clash := next((r for r in chunk if taken & set(r.values)), None):
                raise DataError(
                    f"{clash.place}: column {(taken & set(clash.values)).pop()!r} is an answer's; rename it"
                )
            empty = dict.fromkeys(sample)
            out.write(
                [
                    {**r.values, **{names[k]: v for k, v in (a or empty).items()}}
                    for r, a in zip(chunk, answers, strict=True)
                ],
                like={names[k]: v for k, v in sample.items()},
            )
            counts["rows"] += len(chunk)
            counts["blank"] += answers.count(None)
            bar.add(len(chunk))
        if not counts["rows"]:
            raise DataError(f"{source}: no records; give a file with some")
    return counts


def _answer_records(
    predictor: Predictor, records: Sequence[Record], text_column: str | None, strict: bool
) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
    """The answer to each record, None where its text is blank, and an answer to see names and types by."""
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
    given = iter(predictor.answer(examples))
    answers = [None if empty else next(given) for empty in blank]
    sample = next((a for a in answers if a is not None), None)
    return answers, sample or predictor.answer([Example(("blank",))])[0]


def unlabelled(task: Task, columns: Mapping[str, Any], text_column: str | None) -> Task:
    """The task, set to read the text column found or given and no label, if it has such columns."""
    from distilora.tasks.classification import TEXT_COLUMNS, Classification, find_column

    if not isinstance(task, Classification):
        return task
    wanted = text_column or (task.text_column if task.text_column in columns else None)
    return Classification(task.labels, find_column(columns, wanted, TEXT_COLUMNS, "text-column"), None)
