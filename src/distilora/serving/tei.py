"""The API of huggingface/text-embeddings-inference for classifiers: /predict, /info, /tokenize, for the first model alone.

    "text"                          one text          -> [{"score", "label"}, ...], by falling score
    ["a", "b"]                      one pair of texts, which no model here reads
    [["a"], ["b"], ["c", "d"]]      a batch           -> a list of those

Scores are probabilities as the model's task has them: a softmax, sigmoids of several labels, a sigmoid of a single number.
"""

import hashlib
import json
import math
import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import RootModel

from distilora.artifact.format import Artifact
from distilora.serving import fields, shapes
from distilora.serving.bodies import kind_of, parsed, read_body
from distilora.serving.cards import route_of
from distilora.serving.pool import Model
from distilora.serving.refusals import (
    DeadlinePassed,
    Invalid,
    Overloaded,
    TooLarge,
    TooLong,
    TooMany,
    TooSlow,
    Unauthorised,
    Unsupported,
    WrongTask,
)  # fmt: skip
from distilora.serving.replies import reply
from distilora.serving.service import MOST_FLYING, Computed, Service, call_of
from distilora.version import __version__

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "int8": "int8"}
WANTED = "a text, a pair [text, text] or a batch [[text], [text, text], ...] wanted"
REFUSALS = (
    Unauthorised, TooSlow, TooLarge, Unsupported, Invalid, WrongTask, TooMany, TooLong, Overloaded, DeadlinePassed,
)  # fmt: skip


class PredictRequest(shapes.Shape):
    """A text, or a batch of them; `["a", "b"]` is one pair."""

    inputs: str | list[str] | list[list[str]]
    truncate: bool | None = None
    truncation_direction: Literal["Right", "Left"] = "Right"
    raw_scores: bool = False


class Prediction(shapes.Shape):
    """A label with its probability, or its logit."""

    score: float
    label: str


class Predictions(RootModel[list[Prediction] | list[list[Prediction]]]):
    """All labels of a text by falling score; of a batch, a list of those."""


class TokenizeRequest(shapes.Shape):
    """A text, or several."""

    inputs: str | list[str]
    add_special_tokens: bool = True


class Token(shapes.Shape):
    """A token, with its place in the text if it has one."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Tokens(RootModel[list[list[Token]]]):
    """The tokens of each text."""


class TeiError(shapes.Shape):
    """Reason of a refusal."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class Info(shapes.Shape):
    """What is served, within which limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str


def routes(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(tags=["text-embeddings-inference"])
    failures = {400: "An empty input", 424: "The model failed to compute"}
    errors = shapes.refused(*REFUSALS, shape=TeiError, also=failures)

    @router.post(
        "/predict",
        summary="Predict labels",
        responses={200: shapes.given(Predictions, "Labels by falling score"), **errors},
        openapi_extra=shapes.body(
            PredictRequest,
            {
                "one text": {"inputs": "A superb film.", "truncate": True},
                "a batch": {"inputs": [["A superb film."], ["A dull film."]], "raw_scores": True},
            },
        ),
    )
    async def predict(request: Request) -> Response:
        body = await _body(service, request, ("inputs", "truncate", "truncation_direction", "raw_scores"))
        texts, is_batch = _texts(service, body.get("inputs"))
        raw, truncate = fields.flag(body, "raw_scores"), fields.flag(body, "truncate") or body.get("truncate") is None
        model = _classifier(service)
        call = call_of(request)
        computed = await service.compute(request, model, texts, service.deadline(call))
        _check_cut(computed, truncate, fields.word(body, "truncation_direction"))
        begun = time.monotonic()
        predictions = await service.aside(computed.size, predicted, computed, raw)
        call.add("decode", time.monotonic() - begun)
        return reply(predictions if is_batch else predictions[0], headers=_timings(service, request))

    @router.post(
        "/tokenize",
        summary="Tokenise texts",
        responses={200: shapes.given(Tokens, "Tokens of each text, none cut"), **errors},
        openapi_extra=shapes.body(TokenizeRequest, {"one text": {"inputs": "A superb film."}}),
    )
    async def tokenize(request: Request) -> Response:
        body = await _body(service, request, ("inputs", "add_special_tokens"))
        texts = fields.texts(body, "inputs", service.limits)
        special = body.get("add_special_tokens") is None or fields.flag(body, "add_special_tokens")
        model = service.pool.get(None)
        call_of(request).model = model.name
        return reply(await service.aside(sum(map(len, texts)), _tokens, model, texts, special))

    @router.get(
        "/info",
        summary="Describe the first model",
        responses={200: shapes.given(Info, "The model and the limits"), **shapes.refused(Unauthorised, shape=TeiError)},
    )
    async def info(request: Request) -> Response:
        return reply(_info(service))

    return router


async def _body(service: Service, request: Request, names: tuple[str, ...]) -> Any:
    service.batcher.check_room(call_of(request).client)
    raw = await read_body(request, service.limits, service.deadline(call_of(request)) - time.monotonic())
    return fields.known(await service.aside(len(raw), parsed, raw, service.limits.json_depth), names)


def _classifier(service: Service) -> Model:
    model = service.pool.get(None)
    if route_of(model) != "/v1/classify":
        task = model.predictor.task.name
        raise WrongTask(f"inputs: the first model is for task {task}, which has no labels; ask {route_of(model)}")
    return model


def _texts(service: Service, inputs: Any) -> tuple[list[str], bool]:
    """Return the texts of `inputs`, and whether they are a batch. Raises Invalid and the like."""
    if isinstance(inputs, str):
        return [_text(service, [inputs], "inputs")], False
    if not isinstance(inputs, list) or not inputs:
        raise Invalid(f"inputs: {'an empty list' if inputs == [] else kind_of(inputs)} given, {WANTED}", "inputs")
    if isinstance(inputs[0], str):
        return [_text(service, inputs, "inputs")], False
    if len(inputs) > service.limits.inputs:
        raise TooMany(
            f"inputs: batch size {len(inputs)} > maximum allowed batch size {service.limits.inputs}", "inputs"
        )
    return [_text(service, one, f"inputs[{number}]") for number, one in enumerate(inputs)], True


def _text(service: Service, parts: Any, field: str) -> str:
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or len(parts) not in (1, 2):
        raise Invalid(f"{field}: {WANTED}", field)
    if len(parts) == 2:
        raise Invalid(f"{field}: a pair given, but the model reads single texts; a batch is [[text], [text]]", field)
    text = fields.text(parts[0], field, service.limits)
    if not text.strip():
        raise Invalid(f"{field}: the text is blank", field)
    return text


def _check_cut(computed: Computed, truncate: bool, direction: str | None) -> None:
    """Raise TooLong or Invalid where a text is longer than the model reads and may not be cut, or not as the model cuts."""
    if direction not in (None, "Right", "Left"):
        raise Invalid("truncation_direction: Right or Left wanted", "truncation_direction")
    side = computed.model.predictor.artifact.truncation_side
    for number, item in enumerate(computed.prepared):
        if item.truncated and not truncate:
            most = computed.model.predictor.artifact.max_length
            raise TooLong(f"inputs[{number}]: more than {most} tokens given; shorten it, or set truncate", "inputs")
        if item.truncated and direction == "Left" and side != "left":
            raise Invalid(
                "truncation_direction: Left given, but this model reads a text's beginning; drop it", "inputs"
            )


def predicted(computed: Computed, raw: bool) -> list[list[dict[str, Any]]]:
    """Return the labels of each text with their scores, by falling score."""
    task = computed.model.predictor.task
    answers = computed.answers()
    logits = computed.logits() if raw and task.labels else None
    predictions = []
    for number, answer in enumerate(answers):
        if not task.labels:  # a single number
            value = float(answer["value"])
            scores = {"value": value if raw else 0.5 + 0.5 * math.tanh(value / 2)}  # a sigmoid that cannot overflow
        elif logits is not None:
            scores = dict(zip(task.labels, map(float, logits[number]), strict=True))
        else:
            scores = {label: answer[f"p_{label}"] for label in task.labels}
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        predictions.append([{"score": score, "label": label} for label, score in ranked])
    return predictions


def _tokens(model: Model, texts: list[str], special: bool) -> list[list[dict[str, Any]]]:
    tokenizer = model.predictor.tokenizer
    shown = []
    for text in texts:
        whole = tokenizer.encode(text, add_special_tokens=special)
        shown.append(
            [
                {"id": token, "text": word, "special": bool(is_special), "start": None if is_special else start,
                 "stop": None if is_special else stop}
                for token, word, is_special, (start, stop) in zip(
                    whole.ids, whole.tokens, whole.special_tokens_mask, whole.offsets, strict=True
                )
            ]
        )  # fmt: skip
    return shown


def _timings(service: Service, request: Request) -> dict[str, str]:
    call = call_of(request)
    milliseconds = {stage: f"{1000 * seconds:.0f}" for stage, seconds in call.seconds.items()}
    total = f"{1000 * (time.monotonic() - call.arrived):.0f}"
    return {
        "x-compute-type": "cpu", "x-compute-time": total, "x-total-time": total,
        "x-compute-characters": str(call.characters), "x-compute-tokens": str(call.tokens),
        "x-tokenization-time": milliseconds.get("tokenise", "0"), "x-queue-time": milliseconds.get("queue", "0"),
        "x-inference-time": milliseconds.get("compute", "0"),
    }  # fmt: skip


def _sha(artifact: Artifact) -> str:
    """Return what changes with any file of a model."""
    if not artifact.files:  # a Transformers classifier
        return str(artifact.encoder["sha256"])
    return hashlib.sha256(json.dumps(artifact.files, sort_keys=True).encode()).hexdigest()


def _info(service: Service) -> dict[str, Any]:
    model, limits = service.pool.get(None), service.limits
    artifact, labels = model.predictor.artifact, model.predictor.task.labels or ("value",)
    precision = model.predictor.backend.precision
    return {
        "model_id": model.name,
        "model_sha": _sha(artifact),
        "model_dtype": DTYPES.get(precision, precision),
        "model_type": {
            "classifier": {
                "id2label": {str(number): label for number, label in enumerate(labels)},
                "label2id": {label: number for number, label in enumerate(labels)},
            }
        },
        "max_concurrent_requests": MOST_FLYING,
        "max_input_length": artifact.max_length,
        "max_batch_tokens": limits.batch_tokens,
        "max_client_batch_size": limits.inputs,
        "auto_truncate": True,
        "tokenization_workers": 2,
        "version": __version__,
    }
