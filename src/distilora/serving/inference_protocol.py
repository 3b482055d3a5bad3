"""KServe's open inference protocol, version 2: metadata, health, and POST /v2/models/NAME/infer with one BYTES input of N texts.

classification, ordinal    label BYTES [N], score FP32 [N], probabilities FP32 [N, C]
multilabel                 labels BYTES [N], joined by semicolons, probabilities FP32 [N, C]
regression                 value FP32 [N]
"""

import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from distilora.serving import fields, shapes
from distilora.serving.bodies import kind_of, parsed, read_body
from distilora.serving.cards import route_of
from distilora.serving.pool import Model
from distilora.serving.refusals import (
    DeadlinePassed,
    Draining,
    Failed,
    Invalid,
    Overloaded,
    TooLarge,
    TooSlow,
    Unauthorised,
    UnknownModel,
    Unsupported,
    WrongTask,
)  # fmt: skip
from distilora.serving.replies import reply
from distilora.serving.service import Computed, Service, call_of
from distilora.version import __version__

PLATFORMS = {"torch": "pytorch_distilora", "onnx": "onnx_onnxv1", "openvino": "openvino"}  # by backend
REFUSALS = (
    Unauthorised, UnknownModel, TooSlow, TooLarge, Unsupported, Overloaded, Failed, Draining, DeadlinePassed,
)  # fmt: skip


class Tensor(BaseModel):
    """A tensor; its data may be nested or flat."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    """One input, BYTES [N] or [N, 1]; `outputs` names those that are wanted, by default all."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor]
    outputs: list[dict[str, Any]] | None = None


class InferAnswer(BaseModel):
    """Outputs for the N texts."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class V2Error(shapes.Shape):
    """Reason of a refusal."""

    error: str


class ServerMetadata(shapes.Shape):
    """The service."""

    name: Literal["distilora"]
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """A model's inputs and outputs; a size of -1 is the number of texts."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class Live(shapes.Shape):
    """Whether the process runs."""

    live: bool


class Ready(BaseModel):
    """Whether requests are welcome."""

    name: str | None = None
    ready: bool


def routes(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(tags=["open inference protocol"])
    missing = shapes.refused(Unauthorised, UnknownModel, shape=V2Error)
    unready: dict[int | str, Any] = {503: {"model": Ready, "description": "Not ready"}}

    @router.get(
        "/v2",
        summary="Describe the service",
        responses={
            200: shapes.given(ServerMetadata, "The service"),
            **shapes.refused(Unauthorised, shape=V2Error),
        },
    )
    async def server(request: Request) -> Response:
        return reply({"name": "distilora", "version": __version__, "extensions": []})

    @router.get(
        "/v2/health/live",
        summary="Tell whether the process runs",
        responses={200: shapes.given(Live, "It does")},
    )
    async def live(request: Request) -> Response:
        return reply({"live": True})

    @router.get(
        "/v2/health/ready",
        summary="Tell whether requests are welcome",
        responses={200: shapes.given(Ready, "They are"), **unready},
    )
    async def ready(request: Request) -> Response:
        is_ready = await service.ready()
        return reply({"ready": is_ready}, 200 if is_ready else 503)

    @router.get(
        "/v2/models/{name}",
        summary="Describe a model",
        responses={200: shapes.given(ModelMetadata, "The model"), **missing},
    )
    async def metadata(request: Request, name: str) -> Response:
        return reply(_metadata(service.pool.get(name)))

    @router.get(
        "/v2/models/{name}/ready",
        summary="Tell whether a model is ready",
        responses={200: shapes.given(Ready, "It is"), **missing, **unready},
    )
    async def model_ready(request: Request, name: str) -> Response:
        model, is_ready = service.pool.get(name), await service.ready()
        return reply({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)

    @router.post(
        "/v2/models/{name}/infer",
        summary="Infer",
        responses={
            200: shapes.given(InferAnswer, "The outputs"),
            **shapes.refused(*REFUSALS, shape=V2Error, also={400: "The request cannot be read"}),
        },
        openapi_extra=shapes.body(
            InferRequest,
            {
                "two texts": {
                    "id": "1", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["superb", "dull"]}],
                }
            },
        ),
    )  # fmt: skip
    async def infer(request: Request, name: str) -> Response:
        model = service.pool.get(name)
        service.batcher.check_room(call_of(request).client)
        raw = await read_body(request, service.limits, service.deadline(call_of(request)) - time.monotonic())
        body = await service.aside(len(raw), parsed, raw, service.limits.json_depth)
        body = fields.known(body, ("id", "parameters", "inputs", "outputs"))
        identity, wanted = fields.word(body, "id"), _wanted(body.get("outputs"), model)
        texts = _texts(service, body.get("inputs"))
        computed = await service.compute(request, model, texts, service.deadline(call_of(request)))
        outputs = await service.aside(computed.size, _outputs, computed)
        answer = {
            "model_name": model.name,
            "model_version": "1",
            "outputs": [o for o in outputs if o["name"] in wanted],
        }
        return reply(answer if identity is None else {**answer, "id": identity})

    return router


def _layout(model: Model) -> dict[str, tuple[str, list[int]]]:
    """Return the outputs of a model: name to datatype and shape. Raises WrongTask for a task without."""
    task = model.predictor.task
    if route_of(model) != "/v1/classify":
        raise WrongTask(
            f"model: {model.name} is for task {task.name}, which has no such outputs; ask {route_of(model)}"
        )
    if not task.labels:
        return {"value": ("FP32", [-1])}
    probabilities = ("FP32", [-1, len(task.labels)])
    if task.name == "multilabel":
        return {"labels": ("BYTES", [-1]), "probabilities": probabilities}
    return {"label": ("BYTES", [-1]), "score": ("FP32", [-1]), "probabilities": probabilities}


def _metadata(model: Model) -> dict[str, Any]:
    outputs = [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in _layout(model).items()]
    return {
        "name": model.name,
        "versions": ["1"],
        "platform": PLATFORMS[model.predictor.artifact.backend],
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
        "parameters": {"labels": list(model.predictor.task.labels)},
    }


def _wanted(outputs: Any, model: Model) -> set[str]:
    names = set(_layout(model))
    if outputs is None:
        return names
    if not isinstance(outputs, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in outputs
    ):
        raise Invalid("outputs: a list of objects with a name wanted", "outputs")
    for one in outputs:
        if one["name"] not in names:
            raise Invalid(f"outputs: there is no {one['name']!r:.60}; there are {', '.join(sorted(names))}", "outputs")
    return {one["name"] for one in outputs}


def _texts(service: Service, inputs: Any) -> list[str]:
    """Return the texts of the only input. Raises Invalid and the like."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Invalid("inputs: a list of one tensor wanted", "inputs")
    tensor = fields.known(inputs[0], ("name", "shape", "datatype", "parameters", "data"))
    if tensor.get("datatype") != "BYTES":
        raise Invalid(f"inputs[0].datatype: {tensor.get('datatype')!r:.60} given, 'BYTES' wanted", "inputs[0].datatype")
    if "data" not in tensor:
        raise Invalid("inputs[0].data: none given; binary data are not read, send JSON", "inputs[0].data")
    data = [
        part[0] if isinstance(part, list) and len(part) == 1 else part
        for part in fields.listed(tensor["data"], "inputs[0].data", service.limits, "a list of texts")
    ]
    shape = tensor.get("shape")
    if shape not in ([len(data)], [len(data), 1]):
        given = kind_of(shape) if not isinstance(shape, list) else f"{shape}"[:60]
        raise Invalid(f"inputs[0].shape: {given} given, [{len(data)}] wanted for {len(data)} texts", "inputs[0].shape")
    return [fields.text(text, f"inputs[0].data[{number}]", service.limits) for number, text in enumerate(data)]


def _outputs(computed: Computed) -> list[dict[str, Any]]:
    """Return the outputs as tensors, their data flat."""
    answers, labels = computed.answers(), computed.model.predictor.task.labels
    tensors = []
    for name, (kind, shape) in _layout(computed.model).items():
        if name == "probabilities":
            data: list[Any] = [answer[f"p_{label}"] for answer in answers for label in labels]
        else:
            data = [answer[name] for answer in answers]
        tensors.append({"name": name, "datatype": kind, "shape": [len(answers), *shape[1:]], "data": data})
    return tensors
