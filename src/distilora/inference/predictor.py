"""Predicts: composes artifact, tokenizer, micro-batches, backend and task. Only the torch backend imports torch.

    text -> cleaning -> tokens -> rows -> micro-batches -> backend -> outputs -> calibrated -> task.decode -> answer
                |                                                                    ^
                +-> n-gram expert, where the model has one --------------------------+

Answers come in input order, however the texts were batched. In a stream the next few hundred texts are read, tokenised and queued
behind the last ones while those are computed, and a repeated text is computed once.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilora.artifact.find import find_model
from distilora.artifact.format import Artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.outputs import Outputs, stacked
from distilora.batching.tokens import Tokenised
from distilora.config.schema import BackendName, Base, LexiconUse
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.hardware import Device, InferencePrecision
from distilora.inference.abstention import check_abstention, threshold_for
from distilora.inference.backends import Backend, open_backend
from distilora.inference.calibrate import calibrator_of
from distilora.inference.cascade import Cascade, cascade_of, check_cascade
from distilora.inference.lanes import Lanes, Started
from distilora.inference.output_cache import CacheEntry, OutputCache
from distilora.inference.regate import trusted
from distilora.inference.texts import is_missing, is_sequence
from distilora.progress import say
from distilora.tasks.base import Task
from distilora.tasks.registry import restore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHOWN = 8  # labels in a predictor's repr
FILL = "give one with words, or drop strict to have its answer empty"
_Begun = tuple[Tokenised, Started]
STREAM = 512  # records per chunk of a stream; two chunks are in memory


class Predictor:
    """Loaded model: `predictor("text")` returns one answer, `predictor([...])` a list, an iterator an iterator.

    An answer holds what the task decodes (for a classification `label`, its calibrated probability `score`, and `p_LABEL`
    of every label), `truncated`: whether the text was longer than the model reads, and `abstain`: whether the score is
    below `abstain_below`, so that somebody else should decide (Chow 1970; never without a score). With a `cascade` it also
    holds `expert_alone`: whether the n-gram expert answered it, without the encoder.

    A blank text has an answer in which all of these are None; so has a missing one (None, NaN, pandas' NA) in a sequence
    or a stream. With `strict` both are errors. Anything else that is not text (7, bytes) always is.

    A predictor made by `load` can be pickled and sent to a worker process, which loads it again from the same folder, in
    the same precision.
    """

    def __init__(
        self,
        artifact: Artifact,
        backend: Backend,
        task: Task | None = None,
        abstain_below: float = 0.0,
        strict: bool = False,
        lexicon: LexiconUse = "auto",
        tokenizer: "Tokenizer | None" = None,
    ) -> None:
        if not 0 <= abstain_below <= 1:
            raise ConfigError(f"abstain_below: {abstain_below!r} given, a probability from 0 to 1 wanted")
        self.abstain_below, self.strict = abstain_below, strict
        self.artifact = artifact
        self.backend = backend
        self.task = task or restore(artifact.task["name"], artifact.task["settings"])
        self.calibrate = calibrator_of(artifact, lexicon)
        self.tokenizer = tokenizer or open_tokenizer(artifact)  # one may serve several models
        self.cleaning = cleaning(artifact.cleaning["name"], artifact.cleaning["version"])
        self.cascade: Cascade | None = None
        self._loading: dict[str, Any] | None = None  # the arguments of `load` that made it
        self._names: tuple[str, ...] = ()  # an answer's keys; empty before the first answer

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the model's outputs; empty if the task has none."""
        return tuple(self.task.labels)

    def __repr__(self) -> str:
        """Show task, labels, backend, precision and the model's folder."""
        labels = ", ".join(self.labels[:SHOWN]) + (f", ... ({len(self.labels)})" if len(self.labels) > SHOWN else "")
        kind = type(self.backend).__name__
        return (
            f"<Predictor {self.artifact.task['name']}{f' ({labels})' if labels else ''}, {kind}, "
            f"{self.backend.precision}, {self.artifact.folder}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments of `load`, not the model. Raises ConfigError if `load` did not make this predictor."""
        if self._loading is None:
            raise ConfigError(
                "predictor: not made by distilora.load, so it cannot be pickled; in the worker call "
                f"distilora.load({str(self.artifact.folder)!r})"
            )
        settings = {**self._loading, "abstain_below": self.abstain_below, "strict": self.strict}
        return _load_again, (_identity(self.artifact), settings)

    def with_task(self, task: Task) -> "Predictor":
        """Return a predictor of the same model, nothing of it copied, with another task; it cannot be pickled."""
        view = object.__new__(type(self))
        vars(view).update(vars(self), task=task, _loading=None, _names=())
        return view

    def __call__(self, texts: str | Iterable[Any], *, strict: bool | None = None) -> Any:
        """Answer a text with a dict, a sequence with a list, any other iterable with an iterator (see `stream`).

        A record, {"question": ..., "context": ...}, may stand for a text where a task reads more than one.

        A list, a pandas Series or a NumPy array is a sequence, and is checked completely before anything is computed.
        Raises DataError, naming the position, for what is not text and, with `strict` (None: as loaded), for a blank one.
        """
        if isinstance(texts, str | Mapping):
            return self([texts], strict=strict)[0]
        if not is_sequence(texts):
            return self.stream(texts, strict)
        examples = list(self._examples(texts, 1, strict))
        chunks = (examples[start : start + STREAM] for start in range(0, len(examples), STREAM))
        return list(self._answers_of_all(chunks))

    def answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Answer cleaned examples, in order."""
        return next(self.answers([examples]))

    def answers(self, chunks: Iterable[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        """Answer cleaned examples chunk by chunk; the next chunk is read and tokenised while one is computed."""
        if self.cascade is None:
            yield from self._model_answers(chunks)
            return
        judged: deque[list[dict[str, Any] | None]] = deque()

        def unsure(cascade: Cascade) -> Iterator[list[Example]]:
            for examples in chunks:
                judged.append(cascade.judge(examples))
                yield [example for example, answer in zip(examples, judged[-1], strict=True) if answer is None]

        for of_model in map(iter, self._model_answers(unsure(self.cascade))):
            answers = [
                {**(next(of_model) if alone is None else self._shown(alone, False)), "expert_alone": alone is not None}
                for alone in judged.popleft()
            ]
            self._names = tuple(answers[0]) if answers else self._names
            yield answers

    def _model_answers(self, chunks: Iterable[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        cache, iterator = OutputCache(), iter(chunks)
        waiting: tuple[Sequence[Example], list[CacheEntry], list[CacheEntry], Future[_Begun]] | None = None
        with Lanes(self.backend) as lanes, ThreadPoolExecutor(1) as tokeniser:
            while True:
                try:
                    examples = next(iterator, None)
                except Exception:
                    if waiting:  # chunks read before the error are answered first
                        yield self._answered(*waiting)
                    raise
                last = waiting
                if examples is not None:
                    entries, missing, missing_examples = cache.look_up(examples)
                    if last:
                        begun = tokeniser.submit(self._begin, lanes, missing_examples)
                    else:  # nothing is computed meanwhile, and a single text should not wait for the thread
                        begun = Future()
                        begun.set_result(self._begin(lanes, missing_examples))
                    waiting = examples, entries, missing, begun
                if last:
                    yield self._answered(*last)
                if examples is None:
                    return

    def stream(self, texts: Iterable[Any], strict: bool | None = None) -> Iterator[dict[str, Any]]:
        """Answer any number of texts, in order, with about a thousand in memory at a time; `strict` as in a call.

        A text that is an error raises when its chunk is reached, after the answers to the chunks before it.
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
        """Yield each text's cleaned example, None where it is missing or blank; `first` is the first text's number."""
        strict = self.strict if strict is None else strict
        for number, text in enumerate(texts, first):
            example = None if is_missing(text) else self._cleaned(text, f"text {number}")
            if example is None and strict:
                raise DataError(f"text {number}: the text is {'missing' if is_missing(text) else 'blank'}; {FILL}")
            yield example

    def _answers_of_all(self, chunks: Iterable[Sequence[Example | None]]) -> Iterator[dict[str, Any]]:
        """Yield an answer for each example, in order; one of nulls where the example is None."""
        read_so_far: deque[Sequence[Example | None]] = deque()

        def present() -> Iterator[list[Example]]:
            for chunk in chunks:
                read_so_far.append(chunk)
                yield [example for example in chunk if example is not None]

        for answers in self.answers(present()):
            answers_left = iter(answers)
            for example in read_so_far.popleft():
                yield dict.fromkeys(self._answer_names()) if example is None else next(answers_left)

    def _answer_names(self) -> tuple[str, ...]:
        if not self._names:
            self.answer([Example(("blank",))])
        return self._names

    def _begin(self, lanes: Lanes, examples: Sequence[Example]) -> _Begun:
        """Tokenise examples and queue them in the lanes."""
        tokens = self.task.tokenise(self.tokenizer, examples)
        return tokens, lanes.start(tokens.rows)

    def _answered(
        self,
        examples: Sequence[Example],
        entries: list[CacheEntry],
        missing: list[CacheEntry],
        begun: Future[_Begun],
    ) -> list[dict[str, Any]]:
        tokens, started = begun.result()
        if missing:
            for entry, outputs, cut in zip(missing, started.outputs(), tokens.truncated, strict=True):
                entry.outputs, entry.truncated = outputs, bool(cut)
        if not examples:
            return []
        outputs = stacked([entry.outputs for entry in entries])
        return self.decoded(outputs, examples, [entry.truncated for entry in entries])

    def decoded(self, outputs: Outputs, examples: Sequence[Example], truncated: Sequence[bool]) -> list[dict[str, Any]]:
        """Turn the encoder's outputs for cleaned examples, [G, ...], into answers; `truncated`: whether each was cut."""
        outputs = self.calibrate(outputs, examples)
        decoded = self.task.decode(outputs, examples, self.tokenizer)
        answers = [self._shown(answer, cut) for answer, cut in zip(decoded, truncated, strict=True)]
        self._names = tuple(answers[0])
        return answers

    def _shown(self, answer: dict[str, Any], truncated: bool) -> dict[str, Any]:
        return {**answer, "truncated": truncated, "abstain": answer.get("score", 1.0) < self.abstain_below}

    def example(self, text: Any, place: str) -> Example:
        """Return a text's cleaned example. Raises DataError, naming `place`, if it is blank or not text."""
        example = self._cleaned(text, place)
        if example is None:
            raise DataError(f"{place}: the text is blank; give one with words")
        return example

    def _cleaned(self, text: Any, place: str) -> Example | None:
        """Return a text's cleaned example, None if it is blank. Raises DataError, naming `place`, if it is not text."""
        if isinstance(text, Mapping):
            return self._cleaned_record(text, place)
        if not isinstance(text, str):
            raise DataError(f"{place}: {type(text).__name__} given, text wanted")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: character {error.start + 1} is not UTF-8; correct the text") from None
        example = self.task.read_text(str(text))  # NumPy's str_ becomes a plain str
        cleaned = self.task.cleaned(replace(example, place=place), self.cleaning)
        return cleaned if any(part.strip() for part in cleaned.texts) else None

    def _cleaned_record(self, values: Mapping[str, Any], place: str) -> Example | None:
        """Return the cleaned example of a record, such as {"question": ..., "context": ...}; None if it is blank."""
        try:
            example = self.task.for_prediction(list(values)).read(values)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        cleaned = self.task.cleaned(replace(example, place=place), self.cleaning)
        return cleaned if any(part.strip() for part in cleaned.texts) else None


def load(
    path: str | Path,
    precision: InferencePrecision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
    abstain_below: float = 0.0,
    backend: BackendName = "auto",
    strict: bool = False,
    lexicon: LexiconUse = "auto",
    abstain_error: float | None = None,
    cascade: bool = False,
) -> Predictor:
    """Load a predictor from a run's folder, its model/, an exported folder, a Transformers classifier, or a Hub name.

    `backend` auto is onnx or openvino for a folder that holds such a graph, else torch; `precision` auto is what the export's
    parity gate chose, and for a run bf16 where the processor computes in it.

    `encoder` is the encoder's present location, if it has moved since training; it must be the same one (SHA-256).
    `base` is what a qlora run's adapter is put on: '4bit', as in training (auto), or 'full', the full-precision encoder.
    `lexicon` 'none' leaves a model's n-gram expert out: the encoder answers alone, with a temperature of its own.
    Answers with a score below `abstain_below` have `abstain` set; `strict` makes a blank text an error.
    `abstain_error` chooses that threshold: with 95% confidence at most this share of the answers that do not abstain is
    wrong (tasks/abstention.py). A note says what was chosen; it is the predictor's `abstain_below`.

    With `cascade` texts of which the n-gram expert is sure are answered by it alone, so that with 95% confidence at most 0.1
    points of accuracy are lost (tasks/cascade.py); a note says where that is so.

    On another kind of processor than it was measured on, int8 is measured again (inference/regate.py). If it fails, fp32
    takes its place, with a warning, where the folder holds it and `precision` is auto.
    On a CPU the torch backend makes glibc keep freed memory, for the whole process and from then on (hardware.py).

    Raises ArtifactError if the model is damaged or its int8 fails here, MissingExtra without the backend's package,
    ConfigError for settings that the model does not support or an error rate that no threshold keeps, EncoderError without
    its encoder.
    """
    artifact = find_model(path)
    if lexicon == "none" and not artifact.lexicon:
        raise ConfigError(f"lexicon: none given, but {artifact.folder} has no n-gram expert to leave out; drop it")
    check_abstention(artifact, abstain_below, abstain_error, base, lexicon)
    if cascade:
        check_cascade(artifact, lexicon, abstain_error)
    task = restore(artifact.task["name"], artifact.task["settings"])
    engine = open_backend(artifact, precision, device, encoder, base, backend)
    engine = trusted(artifact, task, engine, precision)
    if abstain_error is not None:
        threshold = threshold_for(artifact, engine.precision, abstain_error)
        say(f"note: {threshold.sentence()}")
        abstain_below = threshold.score
    predictor = Predictor(artifact, engine, task, abstain_below, strict, lexicon)
    if cascade and predictor.calibrate.expert is not None:
        predictor.cascade = cascade_of(
            artifact, engine.precision, predictor.calibrate.expert, task, predictor.tokenizer
        )
        say(f"note: {predictor.cascade.threshold.sentence()}")
    if encoder and Path(encoder).exists():
        encoder = str(Path(encoder).absolute())  # a worker may start in another folder
    folder = str(artifact.folder.absolute())
    predictor._loading = {
        "path": folder, "precision": engine.precision, "device": device, "encoder": encoder, "base": base,
        "lexicon": lexicon, "cascade": cascade,
    }  # fmt: skip
    return predictor


def _load_again(identity: tuple[Any, ...], settings: dict[str, Any]) -> Predictor:
    """Unpickle a predictor. Raises ArtifactError if its folder holds another model by now."""
    predictor = load(**settings)
    if _identity(predictor.artifact) != identity:
        folder = settings["path"]
        raise ArtifactError(
            f"{folder}: holds another model than when the predictor was pickled; load it and pickle again"
        )
    return predictor


def _identity(artifact: Artifact) -> tuple[Any, ...]:
    return artifact.task, artifact.temperature, artifact.encoder["sha256"], artifact.files
