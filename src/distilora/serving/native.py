"""The native API: /v1/classify, /v1/answer, /v1/summarise and /v1/models, for one text, a list, or a stream of lines."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from distilora.serving import asked, cards, shapes
from distilora.serving.asked import Asked
from distilora.serving.bodies import NDJSON, content_type, parsed, read_body
from distilora.serving.explaining import explain_all
from distilora.serving.refusals import (
    DeadlinePassed,
    Draining,
    Failed,
    Invalid,
    Overloaded,
    TooLarge,
    TooLong,
    TooMany,
    TooSlow,
    Unauthorised,
    UnknownModel,
    Unsupported,
    WrongTask,
)  # fmt: skip
from distilora.serving.replies import json_bytes, reply
from distilora.serving.service import LARGE, Computed, Service, call_of
from distilora.serving.streams import Streamed

Read = Callable[[Service, Any], Asked]
OfLine = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
REFUSALS = (
    Unauthorised, UnknownModel, TooSlow, TooLarge, Unsupported, Invalid, WrongTask, TooMany, TooLong, Overloaded, Failed,
    Draining, DeadlinePassed,
)  # fmt: skip
STREAM = (
    "\n\nWith `content-type: application/x-ndjson`, one input a line, answers come as NDJSON, line by line in the same order; "
    "settings are then in the query. A line that cannot be answered has `error` in its place."
)
REVIEW = "A slow start, but the last hour is superb."
PAIR = {"question": "How is the last hour?", "context": REVIEW}


def routes(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(tags=["native"])

    @router.post(
        "/v1/classify",
        summary="Classify, grade, tag or value texts",
        description="Answers texts with labels and calibrated probabilities, or with a number." + STREAM,
        responses={200: shapes.given(shapes.ClassifyAnswers, "Answers, in order"), **shapes.refused(*REFUSALS)},
        openapi_extra=shapes.body(
            shapes.ClassifyRequest,
            {
                "one text": {"input": REVIEW},
                "several texts": {"input": [REVIEW, "dull"], "top_k": 1, "timeout_ms": 20_000},
                "explained": {"input": REVIEW, "explain": True},
            },
            lines=[REVIEW, "dull"],
            query={"model": "string", "top_k": "integer", "raw_scores": "boolean", "timeout_ms": "integer"},
        ),
    )
    async def classify(request: Request) -> Response:
        return await _answer(service, request, asked.classification, asked.classification_of_line)

    @router.post(
        "/v1/answer",
        summary="Answer questions from a text",
        description="Finds the answers to questions in a context, or says that there is none." + STREAM,
        responses={200: shapes.given(shapes.SpanAnswers, "Answers, in order"), **shapes.refused(*REFUSALS)},
        openapi_extra=shapes.body(
            shapes.AnswerRequest,
            {"one question": PAIR, "several questions": {"inputs": [PAIR, PAIR]}},
            lines=[PAIR],
            query={"model": "string", "timeout_ms": "integer"},
        ),
    )
    async def answer(request: Request) -> Response:
        return await _answer(service, request, asked.questions, asked.question_of_line)

    @router.post(
        "/v1/summarise",
        summary="Summarise texts",
        description="Summarises texts, by a number of `sentences` or `words`, or as the model was trained to." + STREAM,
        responses={200: shapes.given(shapes.Summaries, "Summaries, in order"), **shapes.refused(*REFUSALS)},
        openapi_extra=shapes.body(
            shapes.SummariseRequest,
            {"one text": {"input": "A slow start. The middle is dull. The end is superb."}},
            lines=["A slow start. The end is superb."],
            query={"model": "string", "sentences": "integer", "words": "integer", "timeout_ms": "integer"},
        ),
    )
    async def summarise(request: Request) -> Response:
        return await _answer(service, request, asked.summaries, asked.classification_of_line)

    @router.get(
        "/v1/models",
        summary="List the models",
        responses={200: shapes.given(shapes.Models, "All models"), **shapes.refused(Unauthorised)},
    )
    async def list_models(request: Request) -> Response:
        models = service.pool.models

        def entries() -> list[dict[str, Any]]:
            return [cards.entry(model, service.limits, model is models[0]) for model in models]

        return reply({"models": await service.aside(LARGE, entries), "corrections": service.corrections})

    @router.get(
        "/v1/models/{name}",
        summary="Describe a model",
        responses={
            200: shapes.given(shapes.ModelCard, "The model"),
            **shapes.refused(Unauthorised, UnknownModel, Invalid),
        },
    )
    async def describe_model(request: Request, name: str) -> Response:
        model = service.pool.get(name)
        first = model is service.pool.get(None)
        return reply(await service.aside(LARGE, cards.card, model, service.limits, first))

    return router


async def _answer(service: Service, request: Request, read: Read, of_line: OfLine) -> Response:
    """Answer a request, or a stream of lines, of a kind."""
    if content_type(request) == NDJSON:
        return _stream(service, request, read, of_line)
    asked.check_no_query(request.query_params, request.url.path)
    call = call_of(request)
    service.batcher.check_room(call.client)
    raw = await read_body(request, service.limits, service.deadline(call) - time.monotonic())
    wanted = read(service, await service.aside(len(raw), parsed, raw, service.limits.json_depth))
    deadline = service.deadline(call, wanted.timeout_ms)
    computed = await service.compute(request, wanted.model, wanted.inputs, deadline, places=wanted.places)
    answers = await _shown(service, request, wanted, computed)
    if wanted.explain:
        level = None if wanted.explain == "auto" else wanted.explain
        reasons = await explain_all(service, request, computed, wanted.inputs, level, deadline)
        answers = [{**one, "explanation": reason} for one, reason in zip(answers, reasons, strict=True)]
    head = {"model": wanted.model.name, "task": wanted.model.predictor.task.name}
    return reply({**head, "answers": answers, "usage": {"tokens": call.tokens}})


async def _shown(service: Service, request: Request, wanted: Asked, computed: Computed) -> list[dict[str, Any]]:
    begun = time.monotonic()
    answers = await service.aside(computed.size, wanted.show, computed)
    call_of(request).add("decode", time.monotonic() - begun)
    return answers


def _stream(service: Service, request: Request, read: Read, of_line: OfLine) -> Streamed:
    """Answer a stream of lines; whatever is wrong with its settings is told before, with a status."""
    settings = asked.query_settings(request.query_params, request.url.path)
    read(service, of_line({"question": "x", "context": "x"} if read is asked.questions else "x", settings))
    depth = service.limits.json_depth

    async def line(raw: bytes) -> bytes:
        begun = time.monotonic()
        value = await service.aside(len(raw), parsed, raw, depth, "input")
        wanted = read(service, of_line(value, settings))
        most = service.limits.timeout_ms
        deadline = begun + min(wanted.timeout_ms or most, most) / 1000
        computed = await service.compute(request, wanted.model, wanted.inputs, deadline, False, wanted.places)
        (answer,) = await _shown(service, request, wanted, computed)
        return json_bytes(answer)

    return Streamed(service, line)
