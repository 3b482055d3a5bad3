"""Reads what the native API is asked, and shows what it answers, by the kinds of task: labels and numbers, spans, summaries.

Each kind has `read(service, body)`, from a JSON object to Asked, and `of_line(value, settings)`, from a line of a stream to such
an object.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from distilora.errors import ConfigError
from distilora.serving import fields
from distilora.serving.bodies import kind_of
from distilora.serving.cards import route_of
from distilora.serving.explaining import Level
from distilora.serving.pool import Model
from distilora.serving.refusals import Invalid, WrongTask
from distilora.serving.service import Computed, Service

Answer = dict[str, Any]
Show = Callable[[Computed], list[Answer]]
PAIRS = "a list of objects with question and context"
SETTINGS = {  # of a stream, by route: they are in its query
    "/v1/classify": ("model", "top_k", "raw_scores", "timeout_ms"),
    "/v1/answer": ("model", "timeout_ms"),
    "/v1/summarise": ("model", "sentences", "words", "timeout_ms"),
}


@dataclass(frozen=True)
class Asked:
    """A request: the model, what it is to answer, how answers are shown; and what explanations leave out, if any are wanted.

    `places` are the fields that the parts of each input stand in, if not input[0], input[1] and so on.
    """

    model: Model
    inputs: list[Any]
    show: Show
    timeout_ms: int | None = None
    explain: Level | Literal["auto"] | None = None
    places: Sequence[Sequence[str]] | None = None


def query_settings(query: Mapping[str, str], route: str) -> dict[str, Any]:
    """Return the settings in a query, as JSON values. Raises Invalid for one that a stream of the route does not have."""
    if "explain" in query:
        raise Invalid("explain: a stream has no explanations; ask for them in JSON, without a stream", "explain")
    settings: dict[str, Any] = {}
    for name, value in fields.known(dict(query), SETTINGS[route]).items():
        settings[name] = int(value) if value.isdecimal() and len(value) < 10 and name != "model" else value
        if name == "raw_scores":
            if value not in ("true", "false"):
                raise Invalid(f"{name}: {value!r:.60} given, true or false wanted", name)
            settings[name] = value == "true"
        elif name != "model" and not isinstance(settings[name], int):
            raise Invalid(f"{name}: {value!r:.60} given, a whole number of at least 1 wanted", name)
    return settings


def check_no_query(query: Mapping[str, str], route: str) -> None:
    """Raise Invalid for a setting in the query of a request that is no stream: it would have no effect."""
    for name in query:
        if name in (*SETTINGS[route], "explain"):
            raise Invalid(f"{name}: given in the query, where only streams have settings; put it in the body", name)


def classification(service: Service, body: Any) -> Asked:
    """Read a request of /v1/classify. Raises Invalid and the like, UnknownModel, WrongTask."""
    body = fields.known(body, ("model", "input", "top_k", "raw_scores", "explain", "timeout_ms"))
    model = _model(service, body, "/v1/classify")
    top_k, raw = fields.whole(body, "top_k"), fields.flag(body, "raw_scores")
    for name, value in (("top_k", top_k), ("raw_scores", raw)):
        if value and not model.predictor.task.labels:
            raise Invalid(f"{name}: given, but task {model.predictor.task.name} has no labels; drop it", name)
    explain = body.get("explain")
    if not (explain is None or isinstance(explain, bool) or explain in ("word", "sentence")):
        raise Invalid(f"explain: {explain!r:.60} given, true, false, 'word' or 'sentence' wanted", "explain")
    if explain and model.predictor.task.output_kind not in ("label", "first"):
        raise WrongTask(f"explain: answers of task {model.predictor.task.name} cannot be explained; drop it", "explain")
    return Asked(
        model, fields.texts(body, "input", service.limits), partial(_labelled, top_k, raw), fields.whole(body, "timeout_ms"),
        "auto" if explain is True else explain or None,
    )  # fmt: skip


def classification_of_line(value: Any, settings: Mapping[str, Any]) -> Answer:
    """Return the request of a line that is a text, or an object with `input`."""
    return {**settings, "input": _only(value, "input")}


def questions(service: Service, body: Any) -> Asked:
    """Read a request of /v1/answer. Raises Invalid and the like, UnknownModel, WrongTask."""
    body = fields.known(body, ("model", "question", "context", "inputs", "timeout_ms"))
    model = _model(service, body, "/v1/answer")
    limits = service.limits
    if ("inputs" in body) == ("question" in body or "context" in body):
        raise Invalid("question: give either question and context, or inputs with both in each", "question")
    if "inputs" in body:
        pairs = [
            (_part(one, "question", f"inputs[{n}]", service), _part(one, "context", f"inputs[{n}]", service))
            for n, one in enumerate(fields.listed(body["inputs"], "inputs", limits, PAIRS, "question with its context"))
        ]
        places = [(f"inputs[{n}].question", f"inputs[{n}].context") for n in range(len(pairs))]
    else:
        context = fields.text(body.get("context"), "context", limits)
        pairs = [(question, context) for question in fields.texts(body, "question", limits)]
        several = isinstance(body["question"], list)
        places = [(f"question[{n}]" if several else "question", "context") for n in range(len(pairs))]
    columns = model.predictor.task.settings
    names = str(columns.get("question_column", "question")), str(columns.get("text_column", "context"))
    inputs = [dict(zip(names, pair, strict=True)) for pair in pairs]
    return Asked(model, inputs, _spans, fields.whole(body, "timeout_ms"), places=places)


def question_of_line(value: Any, settings: Mapping[str, Any]) -> Answer:
    """Return the request of a line that is an object with question and context."""
    return {**settings, "inputs": [value]}


def summaries(service: Service, body: Any) -> Asked:
    """Read a request of /v1/summarise. Raises Invalid and the like, UnknownModel, WrongTask."""
    body = fields.known(body, ("model", "input", "sentences", "words", "timeout_ms"))
    model = _model(service, body, "/v1/summarise")
    sentences, words = fields.whole(body, "sentences"), fields.whole(body, "words")
    if sentences and words:
        raise Invalid("words: given beside sentences; drop one of the two", "words")
    if sentences or words:
        model = _lengthened(model, sentences, words)
    return Asked(model, fields.texts(body, "input", service.limits), _summarised, fields.whole(body, "timeout_ms"))


def _model(service: Service, body: Mapping[str, Any], route: str) -> Model:
    model = service.pool.get(fields.word(body, "model"))
    fitting = route_of(model)
    if fitting != route:
        raise WrongTask(
            f"model: {model.name} is for task {model.predictor.task.name}, which {route} does not answer; ask {fitting}",
            "model",
        )
    return model


def _only(value: Any, name: str) -> str:
    if isinstance(value, dict):
        value = fields.known(value, (name,)).get(name)
    if not isinstance(value, str):
        raise Invalid(f"{name}: {kind_of(value)} given, a text wanted", name)
    return value


def _part(value: Any, name: str, field: str, service: Service) -> str:
    if not isinstance(value, dict):
        raise Invalid(f"{field}: {kind_of(value)} given, an object with question and context wanted", field)
    return fields.text(fields.known(value, ("question", "context")).get(name), f"{field}.{name}", service.limits)


def _lengthened(model: Model, sentences: int | None, words: int | None) -> Model:
    """Return the model for summaries of another length, as another view of the same."""
    task = model.predictor.task
    if not hasattr(task, "with_length"):
        name = "words" if sentences is None else "sentences"
        raise Invalid(f"{name}: given, but task {task.name} chooses no sentences; drop it", name)
    try:
        lengthened = task.with_length(sentences, words)
    except ConfigError as error:
        raise Invalid(str(error)) from None
    return replace(model, predictor=model.predictor.with_task(lengthened))


def _labelled(top_k: int | None, raw: bool, computed: Computed) -> list[Answer]:
    """Show answers of a task of labels, or of a number: sorted labels in place of the flat p_LABEL."""
    task = computed.model.predictor.task
    logits = computed.logits() if raw and task.labels else None
    shown = []
    for number, answer in enumerate(computed.answers()):
        scores = {label: answer[f"p_{label}"] for label in task.labels if f"p_{label}" in answer}
        one = {name: value for name, value in answer.items() if name.removeprefix("p_") not in scores}
        given = one.pop("labels", None)  # of several labels: their names, joined
        if logits is not None and scores:
            scores = dict(zip(task.labels, map(float, logits[number]), strict=True))
        if "score" in one and one.get("label") in scores:
            one["score"] = scores[one["label"]]
        if scores:
            rows = [{"label": label, "score": score} for label, score in scores.items()]
            if given is not None:
                chosen = set(given.split("; "))
                rows = [{**row, "answered": row["label"] in chosen} for row in rows]
            one["labels"] = sorted(rows, key=lambda row: -row["score"])[:top_k]
        shown.append(one)
    return shown


def _spans(computed: Computed) -> list[Answer]:
    names = ("answer", "start", "end", "score", "no_answer", "truncated")
    return [{name: answer[name] for name in names} for answer in computed.answers()]


def _summarised(computed: Computed) -> list[Answer]:
    shown = []
    for answer in computed.answers():
        one = {"summary": answer["summary"], "truncated": answer["truncated"]}
        if "spans" in answer:
            places = json.loads(answer["spans"])
            one["sentences"] = [
                {"text": text, "start": start, "end": end}
                for text, (start, end) in zip(answer["summary"].split("\n"), places, strict=True)
            ]
        shown.append(one)
    return shown
