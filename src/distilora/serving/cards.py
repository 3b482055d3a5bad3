"""Tells what is known of a model: its task and labels, figures with their intervals, its card, its limits."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from distilora.artifact.format import Artifact
from distilora.serving.engines import Shared
from distilora.serving.limits import Limits
from distilora.serving.pool import Model

LONGEST_CARD = 200_000  # characters
ROUTES = {"question-answering": "/v1/answer", "summarization": "/v1/summarise"}  # by the task's pipeline tag
_PATH = re.compile(r"(?<![\w/.:])/(?:[\w.@ -]+/)+([\w.@-]*)")


def route_of(model: Model) -> str:
    """Return the route that fits a model's task."""
    return ROUTES.get(model.predictor.task.pipeline_tag, "/v1/classify")


def engine_of(model: Model) -> str:
    """Describe what computes a model, as 'shared encoder, bf16' or 'onnx int8'."""
    precision = model.predictor.backend.precision
    if isinstance(model.engine, Shared):
        return f"shared encoder, {precision}"
    return f"{model.predictor.artifact.backend} {precision}"


def entry(model: Model, limits: Limits, first: bool) -> dict[str, Any]:
    """Describe a model as the list of models does."""
    artifact, task = model.predictor.artifact, model.predictor.task
    measured = _measured(model)
    metrics = measured.get("metrics")
    names = [name for name in task.headlines if name in (metrics or ())] or list(metrics or ())
    return {
        "name": model.name,
        "task": task.name,
        "route": route_of(model),
        "labels": list(task.labels),
        "figures": {name: metrics[name] for name in names} if metrics else None,
        "measured_on": {key: measured[key] for key in ("split", "examples") if key in measured} or None,
        "limits": {
            "max_length": artifact.max_length, "inputs": limits.inputs, "characters": limits.characters,
            "request_tokens": limits.request_tokens, "body_bytes": limits.body_bytes, "timeout_ms": limits.timeout_ms,
        },
        "engine": engine_of(model),
        "first": first,
    }  # fmt: skip


def card(model: Model, limits: Limits, first: bool) -> dict[str, Any]:
    """Describe a model with its card and, if it was measured, its reliability: bins of confidence, accuracy and count."""
    text = None
    with suppress(OSError, UnicodeDecodeError):
        text = (run_folder(model.predictor.artifact) / "README.md").read_text("utf-8")[:LONGEST_CARD]
        text = without_paths(text)
    bins = (_measured(model).get("figures") or {}).get("reliability")
    return {**entry(model, limits, first), "card": text, "reliability": bins if isinstance(bins, list) else None}


def without_paths(text: str) -> str:
    """Return a text with absolute paths cut to their last names: where things lie is nobody's business."""
    return _PATH.sub(r"\1", text)


def run_folder(artifact: Artifact) -> Path:
    """Return the folder that card and figures of a model are in: its run's, or its own."""
    return artifact.folder.parent if artifact.folder.name == "model" else artifact.folder


def _measured(model: Model) -> Mapping[str, Any]:
    """Return the first evaluation of metrics.json; {} if the model has none, as after an export."""
    try:
        evaluation = json.loads((run_folder(model.predictor.artifact) / "metrics.json").read_text("utf-8"))[
            "evaluations"
        ][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {}
    return evaluation if isinstance(evaluation, Mapping) else {}
