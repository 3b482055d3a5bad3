"""Prediction: artifact + tokenizer + plan + backend + decode. Imports no torch; only the torch backend does.

    text -> cleaning -> tokens -> rows -> plan -> backend -> outputs / temperature -> task.decode -> answer

Answers come in input order, however the plan grouped the texts. In a stream the next few hundred texts are tokenised
while the last are computed, and a text that occurred before is not computed again.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilora.artifact.find import find_model
from distilora.artifact.format import Artifact
from distilora.batching.tokens import Tokenised, read_tokenizer
from distilora.config.schema import BackendName, Base
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.hardware import Device, InferencePrecision
from distilora.inference.backends import Backend, open_backend
from distilora.inference.lanes import run_rows
from distilora.inference.output_cache import CacheEntry, OutputCache
from distilora.inference.regate import trusted
from distilora.inference.texts import is_missing, is_sequence
from distilora.tasks.base import Task
from distilora.tasks.registry import restore

SHOWN = 8  # labels in a predictor's repr
FILL = "give one with words, or drop strict to have its answer empty"
STREAM = 512  # records tokenised together when streaming; twice as many are held


class Predictor:
    """A loaded model. `predictor("text")` gives one answer, `predictor([...])` a list, of an iterator an iterator.

    An answer is what the task decodes (of a classification `label`, its calibrated probability `score`, `p_LABEL` of every
    label), `truncated`: whether the text was longer than the model reads, and `abstain`: whether the score is below
    `abstain_below`, so that somebody else should decide (Chow 1970; without a score never).

    A blank text has an answer in which all of these are None, and so has a missing one (None, NaN, pandas' NA) among
    others; under `strict` it is an error. What is no text at all (7, bytes) always is.

    A predictor that `load` made can be pickled, and so be sent to a worker process: it is loaded again there, from the
    same folder, in the same precision.
    """

    def __init__(
        self,
        artifact: Artifact,
        backend: Backend,
        task: Task | None = None,
        abstain_below: float = 0.0,
        strict: bool = False,
    ) -> None:
        if not 0 <= abstain_below <= 1:
            raise ConfigError(f"abstain_below: {abstain_below!r} given, a probability from 0 to 1 wanted")
        self.abstain_below, self.strict = abstain_below, strict
        self.artifact = artifact
        self.backend = backend
        self.task = task or restore(artifact.task["name"], artifact.task["settings"])
        self.tokenizer = read_tokenizer(artifact.folder / "tokenizer.json", artifact.max_length)
        self.clean = cleaning(artifact.cleaning["name"], artifact.cleaning["version"]).clean
        self._loading: dict[str, Any] | None = None  # arguments that `load` made it with
        self._names: tuple[str, ...] = ()  # of an answer's values, once there was one

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's outputs; empty where the task has none."""
        return tuple(self.task.labels)

    def __repr__(self) -> str:
        """Task, labels, what it computes on and in, and where the model lies."""
        labels = ", ".join(self.labels[:SHOWN]) + (f", ... ({len(self.labels)})" if len(self.labels) > SHOWN else "")
        kind = type(self.backend).__name__
        return (
            f"<Predictor {self.artifact.task['name']}{f' ({labels})' if labels else ''}, {kind}, "
            f"{self.backend.precision}, {self.artifact.folder}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """How to load it again elsewhere. Raises ConfigError if `load` did not make it."""
        if self._loading is None:
            raise ConfigError(
                "predictor: not made by distilora.load, so it cannot be pickled; in the worker call "
                f"distilora.load({str(self.artifact.folder)!r})"
            )
        settings = {**self._loading, "abstain_below": self.abstain_below, "strict": self.strict}
        return _load_again, (_identity(self.artifact), settings)

    def __call__(self, texts: str | Iterable[Any], *, strict: bool | None = None) -> Any:
        """Answers to one text (a dict), a sequence (a list: lists, pandas Series, NumPy arrays) or any other iterable.

        The latter is answered by an iterator, see `stream`. A sequence is checked whole before anything is computed.
        Raises DataError, naming the place, for what is no text, and under `strict` (None: as loaded) for a blank one.
        """
        if isinstance(texts, str):
            return self([texts], strict=strict)[0]
        if not is_sequence(texts):
            return self.stream(texts, strict)
        examples = list(self._examples(texts, 1, strict))
        chunks = (examples[start : start + STREAM] for start in range(0, len(examples), STREAM))
        return list(self._answers_of_all(chunks))

    def answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Answers to cleaned examples, in order."""
        return next(self.answers([examples]))

    def answers(self, chunks: Iterable[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        """Answers to cleaned examples, chunk by chunk; the next chunk is read and tokenised while one is computed."""
        once, iterator = OutputCache(), iter(chunks)
        waiting: tuple[Sequence[Example], list[CacheEntry], list[CacheEntry], Future[Tokenised]] | None = None
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
                        coming = tokeniser.submit(self.task.tokenise, self.tokenizer, fresh)
                    else:  # nothing to do meanwhile, and a single text would wait for the thread
                        coming = Future()
                        coming.set_result(self.task.tokenise(self.tokenizer, fresh))
                    waiting = examples, known, new, coming
                if last:
                    yield self._answered(*last)
                if examples is None:
                    return

    def stream(self, texts: Iterable[Any], strict: bool | None = None) -> Iterator[dict[str, Any]]:
        """Answers to any number of texts, in order, holding about a thousand at a time; `strict` as in a call.

        A text that is an error ends the stream when it is reached, after the answers to the chunks before it.
        """
        if isinstance(texts, str):
            raise DataError("texts: one text given, several wanted; call the predictor with it")
        iterator = iter(texts)

        def chunks() -> Iterator[list[Example | None]]:
            number = 1
            while chunk := list(islice(iterator, STREAM)):
                yield list(self._examples(chunk, number, strict))
                number += len(chunk)

        yield from self._answers_of_all(chunks())

    def _examples(self, texts: Iterable[Any], first: int, strict: bool | None) -> Iterator[Example | None]:
        """The cleaned example of each text, None where it is missing or blank; `first` is the first one's number."""
        strict = self.strict if strict is None else strict
        for number, text in enumerate(texts, first):
            example = None if is_missing(text) else self._cleaned(text, f"text {number}")
            if example is None and strict:
                raise DataError(f"text {number}: the text is {'missing' if is_missing(text) else 'blank'}; {FILL}")
            yield example

    def _answers_of_all(self, chunks: Iterable[Sequence[Example | None]]) -> Iterator[dict[str, Any]]:
        """An answer for each example, in order: nulls where there is none."""
        read_so_far: deque[Sequence[Example | None]] = deque()

        def there() -> Iterator[list[Example]]:
            for chunk in chunks:
                read_so_far.append(chunk)
                yield [example for example in chunk if example is not None]

        for answers in self.answers(there()):
            computed = iter(answers)
            for example in read_so_far.popleft():
                yield dict.fromkeys(self._answer_names()) if example is None else next(computed)

    def _answer_names(self) -> tuple[str, ...]:
        if not self._names:  # nothing was answered yet
            self.answer([Example(("blank",))])
        return self._names

    def _answered(
        self, examples: Sequence[Example], known: list[CacheEntry], new: list[CacheEntry], coming: Future[Tokenised]
    ) -> list[dict[str, Any]]:
        rows, truncated = coming.result()
        if new:
            for text, outputs, cut in zip(new, run_rows(rows, self.backend, lanes=True), truncated, strict=True):
                text.outputs, text.truncated = outputs, bool(cut)
        if not examples:
            return []
        outputs = np.stack([text.outputs for text in known]) / self.artifact.temperature
        decoded = self.task.decode(outputs, examples, self.tokenizer)
        answers = [
            {**answer, "truncated": text.truncated, "abstain": answer.get("score", 1.0) < self.abstain_below}
            for answer, text in zip(decoded, known, strict=True)
        ]
        self._names = tuple(answers[0])
        return answers

    def example(self, text: Any, place: str) -> Example:
        """The cleaned example of a text. Raises DataError, naming `place`, if it is blank or not text."""
        example = self._cleaned(text, place)
        if example is None:
            raise DataError(f"{place}: the text is blank; give one with words")
        return example

    def _cleaned(self, text: Any, place: str) -> Example | None:
        """The cleaned example of a text, None if it is blank. Raises DataError, naming `place`, if it is not text."""
        if not isinstance(text, str):
            raise DataError(f"{place}: {type(text).__name__} given, text wanted")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: character {error.start + 1} is not UTF-8; correct the text") from None
        example = self.task.read_text(str(text))  # of NumPy's kind, too
        cleaned = tuple(self.clean(part) for part in example.texts)
        return Example(cleaned, place=place) if any(part.strip() for part in cleaned) else None


def load(
    path: str | Path,
    precision: InferencePrecision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
    abstain_below: float = 0.0,
    backend: BackendName = "auto",
    strict: bool = False,
) -> Predictor:
    """A predictor from a run's folder, its model/, an exported folder, a Transformers classifier, or the Hub's name of one.

    `backend` auto is onnx for a folder that holds an ONNX graph, else torch; `precision` auto is what the export's parity
    gate chose, and for a run bf16 where the processor computes in it.

    `encoder` says where the encoder lies now, if not where it lay in training; it must be the same one (SHA-256).
    `base` is what a qlora run's adapter is put on: '4bit', as in training (auto), or 'full', the full-precision encoder.
    Answers with a score under `abstain_below` say `abstain`; `strict` makes a blank text an error.

    On another kind of processor than it was measured on, int8 is measured again (inference/regate.py); where it fails, fp32 answers
    in its place if the folder holds it and `precision` is auto, with a warning.
    On a CPU the torch backend has glibc keep freed memory, for the whole process and from then on (hardware.py).

    Raises ArtifactError if the model is damaged or its int8 fails here, MissingExtra without the backend's package,
    ConfigError if the model is not to be had so, EncoderError without its encoder.
    """
    artifact = find_model(path)
    task = restore(artifact.task["name"], artifact.task["settings"])
    opened = open_backend(artifact, precision, device, encoder, base, backend)
    opened = trusted(artifact, task, opened, precision)
    predictor = Predictor(artifact, opened, task, abstain_below, strict)
    if encoder and Path(encoder).exists():
        encoder = str(Path(encoder).absolute())  # a worker may start elsewhere
    folder = str(artifact.folder.absolute())
    predictor._loading = {
        "path": folder, "precision": opened.precision, "device": device, "encoder": encoder, "base": base
    }  # fmt: skip
    return predictor


def _load_again(identity: tuple[Any, ...], settings: dict[str, Any]) -> Predictor:
    """A predictor that was pickled. Raises ArtifactError if its folder holds another model by now."""
    predictor = load(**settings)
    if _identity(predictor.artifact) != identity:
        folder = settings["path"]
        raise ArtifactError(
            f"{folder}: holds another model than when the predictor was pickled; load it and pickle again"
        )
    return predictor


def _identity(artifact: Artifact) -> tuple[Any, ...]:
    return artifact.task, artifact.temperature, artifact.encoder["sha256"], artifact.files
