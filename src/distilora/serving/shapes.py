"""Shapes of requests and answers, as the OpenAPI document shows them; requests themselves are read by fields.py."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from distilora.serving.refusals import Refusal


class Shape(BaseModel):
    """Base of all shapes; there are no other fields than those listed."""

    model_config = ConfigDict(extra="forbid")


class ClassifyRequest(Shape):
    """Texts for a model that classifies, grades, tags or predicts a number."""

    model: str | None = Field(None, description="name of the model; by default the first")
    input: str | list[str]
    top_k: int | None = Field(None, ge=1, description="labels in `labels`, the likeliest first; by default all")
    raw_scores: bool = Field(False, description="calibrated logits in place of probabilities")
    explain: bool | str = Field(
        False, description="true, or 'word' or 'sentence': what is left out, one after the other"
    )
    timeout_ms: int | None = Field(
        None, ge=1, description="longest wait for the answer; at most the service's own limit"
    )


class LabelScore(Shape):
    """A label with its probability, or its logit; `answered`, of a model that gives several labels: whether it is given."""

    label: str
    score: float
    answered: bool | None = None


class Part(Shape):
    """A word or sentence at a place of the text; no weight if the model did not read it."""

    text: str
    start: int
    end: int
    weight: float | None


class Explanation(Shape):
    """The weight of each part: what the measure of the label loses without it. Places are characters of `text`."""

    method: str
    level: str
    label: str
    measure: str
    text: str
    parts: list[Part]


class ClassifyAnswer(BaseModel):
    """Answer to a text: `label` and `score`, or `value`, or `labels` alone, as the model's task is."""

    label: str | None = None
    score: float | None = None
    value: float | None = None
    abstain: bool | None = None
    truncated: bool
    labels: list[LabelScore] | None = None
    explanation: Explanation | None = None


class Usage(Shape):
    """What a request cost."""

    tokens: int


class Answers(Shape):
    """Head of an answer: which model, and its task."""

    model: str
    task: str
    usage: Usage


class ClassifyAnswers(Answers):
    """Answers in the order of the texts."""

    answers: list[ClassifyAnswer]


class Question(Shape):
    """A question, and the text that may answer it."""

    question: str
    context: str


class AnswerRequest(Shape):
    """Questions about a context, or a list of questions each with its own."""

    model: str | None = None
    question: str | list[str] | None = None
    context: str | None = None
    inputs: list[Question] | None = None
    timeout_ms: int | None = Field(None, ge=1)


class SpanAnswer(Shape):
    """A span of the context, in characters of it as given; '' at -1 where the context does not answer."""

    answer: str
    start: int
    end: int
    score: float
    no_answer: float
    truncated: bool


class SpanAnswers(Answers):
    """Answers in the order of the questions."""

    answers: list[SpanAnswer]


class SummariseRequest(Shape):
    """Texts to summarise."""

    model: str | None = None
    input: str | list[str]
    sentences: int | None = Field(None, ge=1)
    words: int | None = Field(None, ge=1)
    timeout_ms: int | None = Field(None, ge=1)


class Sentence(Shape):
    """A sentence of the summary, with its place in the text as given."""

    text: str
    start: int
    end: int


class Summary(Shape):
    """A summary, a sentence a line; `sentences` of a model that chooses them."""

    summary: str
    sentences: list[Sentence] | None = None
    truncated: bool


class Summaries(Answers):
    """Summaries in the order of the texts."""

    answers: list[Summary]


class ModelCard(BaseModel):
    """A model that is served; one that is asked for by name has its card and reliability, too."""

    name: str
    task: str
    route: str
    labels: list[str]
    figures: dict[str, Any] | None = Field(
        description="headline metrics: name -> value, low, high; null: none recorded"
    )
    measured_on: dict[str, Any] | None
    limits: dict[str, Any]
    engine: str
    first: bool
    card: str | None = None
    reliability: list[dict[str, Any]] | None = None


class Models(Shape):
    """All models, the first one first."""

    models: list[ModelCard]
    corrections: bool = Field(description="whether the service keeps corrections")


class Correction(Shape):
    """A text, what was answered, and what is right: a label, a list of labels, or a number."""

    model: str | None = None
    input: str
    answer: Any = None
    correction: str | float | list[str]


class Kept(Shape):
    """That a correction was kept."""

    kept: bool


class Error(Shape):
    """Reason of a refusal: a kind for machines, a line for people, the field at fault if one is."""

    kind: str
    message: str
    field: str | None = None


class ErrorAnswer(Shape):
    """Answer to a request that was refused."""

    error: Error
    request_id: str


def refused(
    *kinds: type[Refusal], shape: type[BaseModel] = ErrorAnswer, also: Mapping[int, str] | None = None
) -> dict[int | str, Any]:
    """Describe the refusals of a route, by status, for FastAPI's `responses`."""
    described: dict[int, list[str]] = {status: [about] for status, about in (also or {}).items()}
    for kind in kinds:
        about = (kind.__doc__ or "").split("\n")[0].rstrip(".")
        described.setdefault(kind.status, []).append(f"{about} (`{kind.kind}`)")
    responses: dict[int | str, Any] = {
        status: {"model": shape, "description": "; ".join(about)} for status, about in sorted(described.items())
    }
    for status in (429, 503):
        if status in responses:
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return responses


def given(shape: type[BaseModel], about: str) -> dict[str, Any]:
    """Describe the answer of a route with status 200."""
    return {"model": shape, "description": about}


def body(
    shape: type[BaseModel],
    examples: Mapping[str, Any],
    lines: Sequence[Any] = (),
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe the body of a route for FastAPI's `openapi_extra`.

    Args:
        examples: bodies by name.
        lines: an example of a stream; none: the route takes no NDJSON.
        query: settings of a stream: name to type.
    """
    content: dict[str, Any] = {
        "application/json": {
            "schema": shape.model_json_schema(ref_template="#/components/schemas/{model}"),
            "examples": {name: {"value": value} for name, value in examples.items()},
        }
    }
    if lines:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        content["application/x-ndjson"] = {"schema": {"type": "string"}, "examples": {"lines": {"value": text}}}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": {"type": kind}, "description": "of a stream only"}
        for name, kind in (query or {}).items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}
