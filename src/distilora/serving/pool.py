"""Models by name, ready to answer; those on one encoder share its weights, and any of them comes and goes while others answer.

    run, plain LoRA, alone on its encoder    a backend of its own, the updates added into the weights: quickest
    several of them on one encoder           the encoder once, each update beside it (model/mixed.py): least memory, mixed batches
    any other run, or an export              a backend of its own

A model is complete before it has a name, and whoever holds it can answer with it after it has lost the name: so a model is replaced
or removed without losing a request. What a removed model held is freed with the last request that it answers.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.artifact.check import Check, read_check
from distilora.artifact.find import find_model
from distilora.artifact.format import Artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.outputs import placed, stacked
from distilora.batching.rows import Rows
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.hardware import InferencePrecision
from distilora.inference.adapter_check import check_adapter, compare_adapter
from distilora.inference.predictor import Predictor, load
from distilora.inference.regate import agrees
from distilora.serving.batcher import Work
from distilora.serving.engines import Alone, Engine, Shared, share
from distilora.serving.logs import log
from distilora.serving.refusals import Invalid, UnknownModel

Outputs = NDArray[np.float32]
FRESH = 5.0  # seconds for which a forward pass counts as a sign of life
LIFE_TEXTS = (
    8  # check texts of such a pass, the shortest: a service that is asked every few seconds has its answers to compute
)


@dataclass(frozen=True)
class Prepared:
    """An input that was cleaned and tokenised."""

    example: Example
    rows: Rows
    truncated: bool


@dataclass(frozen=True, eq=False)
class Checked:
    """A model's check texts, and the outputs of them, [N, ...], with which it passed the check of its loading."""

    check: Check
    outputs: Outputs


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can answer: `adapter` is its own on an engine that several share, else None.

    `checked` is None before it was checked, and for a Transformers classifier, which has no check.npz.
    """

    name: str
    predictor: Predictor
    engine: Engine
    adapter: Any = None
    checked: Checked | None = None

    def prepare(
        self, inputs: Sequence[str | Mapping[str, Any]], places: Sequence[Sequence[str]] | None = None
    ) -> list[Prepared]:
        """Clean and tokenise inputs, texts or records of what the task reads.

        Args:
            places: fields that the parts of each input stand in; None: input[0], input[1] and so on.

        Raises Invalid naming the input that is blank or cannot be read.
        """
        examples = []
        for number, value in enumerate(inputs):
            own = places[number] if places else (f"input[{number}]",)
            try:
                examples.append(self.predictor.example(value, own[0]))
            except DataError as error:
                field = self._blank_part(value, own)
                raise Invalid(field + str(error).removeprefix(own[0]), field) from None
        if not examples:
            return []
        tokens = self.predictor.task.tokenise(self.predictor.tokenizer, examples)
        least = self.predictor.tokenizer.num_special_tokens_to_add(False)
        prepared = []
        for number, example in enumerate(examples):
            rows = tokens.rows.take([number])
            if isinstance(inputs[number], str) and len(rows.ids) <= least:
                field = places[number][0] if places else f"input[{number}]"
                raise Invalid(f"{field}: the encoder finds no word in the text; give one with words", field)
            prepared.append(Prepared(example, rows, bool(tokens.truncated[number])))
        return prepared

    def _blank_part(self, value: str | Mapping[str, Any], places: Sequence[str]) -> str:
        """Return the field of a record's first part that is blank once it is cleaned; else the first field."""
        parts = value.values() if isinstance(value, Mapping) else ()
        clean = self.predictor.cleaning.clean
        blank = (place for place, part in zip(places, parts, strict=False) if not clean(str(part)).strip())
        return next(blank, places[0])

    def works(self, prepared: Sequence[Prepared]) -> list[Work]:
        """Return the work of inputs, for `Batcher.submit`."""
        return [Work(self.engine, self.adapter, item.rows) for item in prepared]

    def answers(self, outputs: Sequence[Outputs], prepared: Sequence[Prepared]) -> list[dict[str, Any]]:
        """Turn the outputs of inputs into answers, as a Predictor gives them."""
        if not prepared:
            return []
        examples = [item.example for item in prepared]
        return self.predictor.decoded(stacked(list(outputs)), examples, [item.truncated for item in prepared])

    def logits(self, outputs: Sequence[Outputs], prepared: Sequence[Prepared]) -> Outputs:
        """Return the calibrated outputs of inputs, [N, ...]: with the n-gram expert, before any softmax."""
        return self.predictor.calibrate(stacked(list(outputs)), [item.example for item in prepared])


class Pool:
    """The models of a service, by name; the first one answers where no name is given."""

    def __init__(self, precision: InferencePrecision = "auto") -> None:
        self.precision = precision
        self._models: dict[str, Model] = {}  # replaced whole, never changed
        self._changing = threading.Lock()
        self._tokenizers: WeakValueDictionary[tuple[Any, ...], Tokenizer] = WeakValueDictionary()
        self._alive_at = -FRESH
        self._alive = False
        self._passes = 0
        self._failing: Model | None = None

    @property
    def models(self) -> list[Model]:
        """All models, the first one first."""
        return list(self._models.values())

    def get(self, name: str | None = None) -> Model:
        """Return the model of a name; None: the first. Raises UnknownModel."""
        models = self._models
        if name is None and models:
            return next(iter(models.values()))
        if name not in models:
            given = "none is served" if name is None else f"{name!r} given"
            raise UnknownModel(f"model: {given}, there is {', '.join(models) or 'none'}; name one of them", "model")
        return models[name]

    def add(self, name: str, folder: str) -> Model:
        """Load a model, check it, and give it the name, whose former holder loses it. Others answer meanwhile.

        Raises ArtifactError for a model that is damaged, or that does not give back the outputs in its check.npz, and what
        `inference.predictor.load` raises.
        """
        artifact = find_model(folder)
        with self._changing:
            companions = [m for m in self.models if m.name != name and _on_one_encoder(m.predictor.artifact, artifact)]
            engine = next((m.engine for m in companions if isinstance(m.engine, Shared)), None)
            if engine is None and companions and _shareable(artifact):
                engine = share(artifact, self.precision)
            if engine is None or not engine.takes(artifact):
                model = self._alone(name, folder)
            else:
                model = self._sharing(name, artifact, engine)
            changed = {name: model} | {
                m.name: self._sharing(m.name, m.predictor.artifact, engine)
                for m in companions
                if engine is not None and model.engine is engine and m.engine is not engine
                and engine.takes(m.predictor.artifact)
            }  # fmt: skip
            changed = {one.name: _verified(one) for one in changed.values()}
            self._models = {**self._models, **changed}
        return changed[name]

    def remove(self, name: str) -> None:
        """Take a name away. Raises UnknownModel without it, ConfigError for the last model."""
        with self._changing:
            self.get(name)
            if len(self._models) == 1:
                raise ConfigError(f"model: {name!r} is the last one; replace it, or stop the service")
            self._models = {other: model for other, model in self._models.items() if other != name}

    def alive(self) -> bool:
        """Tell whether the models give their check texts the outputs that they ought to, by a forward pass at most 5 s old.

        Models take turns; one that failed is tried until it passes.
        """
        if time.monotonic() - self._alive_at < FRESH:
            return self._alive
        models = self.models
        if not models:
            return False
        self._passes += 1
        model = models[self._passes % len(models)]
        if self._failing in models:
            model = self._failing
        self._alive = _passes(model)
        self._failing = None if self._alive else model
        self._alive_at = time.monotonic()
        return self._alive

    def _alone(self, name: str, folder: str) -> Model:
        predictor = load(folder, self.precision)
        predictor.tokenizer = self._tokenizer(predictor.artifact)
        return Model(name, predictor, Alone(predictor.backend))

    def _sharing(self, name: str, artifact: Artifact, engine: Shared) -> Model:
        adapter = engine.add(artifact)
        predictor = Predictor(artifact, engine.backend(adapter), tokenizer=self._tokenizer(artifact))
        return Model(name, predictor, engine, adapter)

    def _tokenizer(self, artifact: Artifact) -> Tokenizer:
        """Open a model's tokenizer, or return that of another model with the same."""
        key = (
            artifact.files.get("tokenizer.json", str(artifact.folder)),
            artifact.max_length,
            artifact.truncation_side,
        )
        tokenizer = self._tokenizers.get(key)
        if tokenizer is None:
            tokenizer = self._tokenizers[key] = open_tokenizer(artifact)
        return tokenizer


def _shareable(artifact: Artifact) -> bool:
    return artifact.weights == "peft" and artifact.quantisation is None


def _on_one_encoder(one: Artifact, other: Artifact) -> bool:
    return _shareable(one) and _shareable(other) and one.encoder["sha256"] == other.encoder["sha256"]


def _outputs(model: Model, examples: Sequence[Example]) -> Outputs:
    """Compute the outputs of examples one by one, as they would be served, [N, ...]."""
    rows = model.predictor.task.tokenise(model.predictor.tokenizer, examples).rows
    compute = model.engine.lane()
    parts = [rows.take([number]) for number in range(len(examples))]
    return stacked([compute([part], [model.adapter])[0] for part in parts])


def _verified(model: Model) -> Model:
    """Return a model that was checked. Raises ArtifactError if it does not give back the outputs in its check.npz."""
    artifact = model.predictor.artifact
    if "check.npz" not in artifact.files:
        return model
    if isinstance(model.engine, Shared):
        check_adapter(artifact, model.predictor.backend)
        check = read_check(artifact.folder)
        return replace(model, checked=Checked(check, check.outputs_fp32))
    check = read_check(artifact.folder)
    outputs = _outputs(model, check.examples)
    _compare(model, check, outputs)
    return replace(model, checked=Checked(check, outputs))


def _compare(model: Model, check: Check, outputs: Outputs) -> None:
    """Raise ArtifactError if outputs of all check texts are not those stored, within the tolerance of the model's engine."""
    artifact, task = model.predictor.artifact, model.predictor.task
    if isinstance(model.engine, Shared):
        compare_adapter(artifact, task, model.predictor.backend.precision, outputs, check.outputs_fp32)
        return
    passed, result = agrees(artifact, task, outputs, check.outputs_fp32)
    if not passed:
        raise ArtifactError(f"{artifact.folder}: not served, since it does not answer as it was saved: {result}")


def _passes(model: Model) -> bool:
    """Tell whether a model still computes what it did when it was checked; the log says why not.

    Its shortest check texts are computed anew, and put among the outputs of the others for the same comparison.
    """
    try:
        if model.checked is None:
            (prepared,) = model.prepare(["a text"])
            outputs = model.engine.lane()([prepared.rows], [model.adapter])[0]
        else:
            check, before = model.checked.check, model.checked.outputs
            outputs = _outputs(model, check.examples[:LIFE_TEXTS])
            _compare(model, check, placed(before.copy(), len(before), slice(0, len(outputs)), outputs))
        return bool(np.isfinite(outputs).all())
    except Exception as error:
        log(logging.ERROR, "no sign of life", error, model=model.name)
        return False
