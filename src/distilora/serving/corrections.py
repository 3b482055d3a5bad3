"""Keeps what a person says is wrong: POST /v1/corrections, one JSON line each in a file that `distilora train` reads.

    {"model", "input", "answer", "correction"} -> {"text", "label", "model", "answered", "when"} + newline

The first model's are in the file itself, those of a model NAME beside it in FILE.NAME.jsonl: labels of two models cannot be
trained on together. `--data.path FILE.jsonl` finds the columns `text` and `label` by their names. A file holds whole lines only: a
line is written at once and flushed to the disk, one that could not be is taken back, and one that a power cut left is cut off.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from distilora.errors import ConfigError
from distilora.serving import shapes
from distilora.serving.bodies import parsed, read_body
from distilora.serving.fields import known
from distilora.serving.limits import Limits
from distilora.serving.refusals import (
    CorrectionsFull,
    Failed,
    Invalid,
    NoCorrections,
    TooLarge,
    TooLong,
    TooSlow,
    Unauthorised,
    Unsupported,
    WrongTask,
)  # fmt: skip
from distilora.tasks.base import Task

MOST_BYTES = 256_000_000  # of the file: whoever may ask may also correct, and a disk is finite
LARGEST = 1e300  # of a number, so that it is a finite float
FIELDS = ("model", "input", "answer", "correction")
_ONE_OF = ("classification", "ordinal")  # tasks whose label is one of the model's
_writing = threading.Lock()  # of all files: corrections are rare


def check_corrections(path: Path) -> None:
    """Raise ConfigError if corrections cannot be kept in `path`."""
    if path.suffix != ".jsonl":
        raise ConfigError(f"--corrections: {path} given, a file ending in .jsonl wanted")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--corrections: {path} is a folder, or its folder does not exist; give another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--corrections: {path} cannot be written; check its permissions, or give another file")


def corrections(
    path: Path | None,
    model: Callable[[str | None], tuple[str, Task]],
    limits: Limits,
    most_bytes: int = MOST_BYTES,
) -> APIRouter:
    """Create the route. Without a path it answers 404, kind `no_corrections`.

    `model` finds a model's name and task by a request's `model` (None: the first) and raises UnknownModel. Raises
    ConfigError if `path` cannot be written.
    """
    if path is not None:
        check_corrections(path)
    router = APIRouter()

    @router.post(
        "/v1/corrections",
        tags=["native"],
        summary="Keep a correction",
        responses={
            200: shapes.given(shapes.Kept, "It is on the disk"),
            **shapes.refused(
                Unauthorised,
                NoCorrections,
                TooSlow,
                TooLarge,
                Unsupported,
                Invalid,
                WrongTask,
                TooLong,
                Failed,
                CorrectionsFull,
            ),
        },
        openapi_extra=shapes.body(
            shapes.Correction, {"a label": {"input": "A superb end.", "answer": {"label": "neg"}, "correction": "pos"}}
        ),
    )
    async def keep(request: Request) -> dict[str, bool]:
        if path is None:
            raise NoCorrections("corrections: the service keeps none; start it with --corrections FILE.jsonl")
        raw = await read_body(request, limits, limits.timeout_ms / 1000)
        body = known(parsed(raw, limits.json_depth), FIELDS)
        name, task = model(_text(body, "model") if body.get("model") is not None else None)
        line = _line(_record(body, name, task, limits))
        own = path if name == model(None)[0] else path.with_name(f"{path.stem}.{name}{path.suffix}")
        await run_in_threadpool(append_line, own, line, most_bytes)
        return {"kept": True}

    return router


def append_line(path: Path, line: bytes, most_bytes: int = MOST_BYTES) -> None:
    """Append a line, which ends in a newline, and wait until it is on the disk; after an error the file is as before.

    Raises CorrectionsFull where the file would exceed `most_bytes`, Failed where it cannot be written.
    """
    with _writing:
        try:
            with open(path, "a+b", buffering=0) as stream:
                size = _whole_lines(stream)
                if size + len(line) > most_bytes:
                    raise CorrectionsFull(
                        f"corrections: the file would exceed {most_bytes:,} bytes; train on it, then start a new one"
                    )
                try:
                    if stream.write(line) != len(line):  # the disk is full, or the file may not grow
                        raise OSError(None, "not all of it was written")
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(size)
                    raise
        except OSError as error:  # without the path, which is the server's affair
            raise Failed(f"corrections: the correction could not be kept ({error.strerror}); keep a copy") from None


def _whole_lines(stream: BinaryIO) -> int:
    """Cut off the end of a line that was never finished, and return the file's size."""
    size = stream.seek(0, os.SEEK_END)
    end, block = size, b""
    while end and b"\n" not in block:
        start = max(end - (1 << 16), 0)
        stream.seek(start)
        block = stream.read(end - start)
        if b"\n" in block:
            start += block.rindex(b"\n") + 1
        end = start
    if end < size:
        stream.truncate(end)
    return end


def _record(body: Mapping[str, Any], name: str, task: Task, limits: Limits) -> dict[str, Any]:
    text = _text(body, "input")
    if not text.strip():
        raise Invalid("input: the text is blank; give one with words", "input")
    if len(text) > limits.characters:
        raise TooLong(f"input: {len(text):,} characters, at most {limits.characters:,} allowed; shorten it", "input")
    answered = body.get("answer")
    if len(json.dumps(answered)) > limits.characters:
        raise TooLong(f"answer: longer than {limits.characters:,} characters; shorten it", "answer")
    label = _label(body.get("correction"), task)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"text": text, "label": label, "model": name, "answered": answered, "when": when}


def _label(correction: Any, task: Task) -> Any:
    """Check a correction against what the task learns from. A label that is none of the model's would be a new class."""
    if task.name == "regression":
        if isinstance(correction, bool) or not isinstance(correction, int | float) or not abs(correction) < LARGEST:
            raise Invalid(f"correction: {_shown(correction)} given, a number wanted", "correction")
        return correction
    if task.name == "multilabel":
        labels = correction if isinstance(correction, list) else [correction]
        if not all(label in task.labels for label in labels) or len(set(labels)) < len(labels):
            raise Invalid(_wrong_label(correction, task, "a list, each once"), "correction")
        return labels
    if task.name not in _ONE_OF:
        raise WrongTask(f"corrections: there are none for task {task.name}; correct its data instead", "model")
    if correction not in task.labels:
        raise Invalid(_wrong_label(correction, task, "one"), "correction")
    return correction


def _wrong_label(correction: Any, task: Task, wanted: str) -> str:
    return (
        f"correction: {_shown(correction)} given, {wanted} of the model's labels wanted: {', '.join(task.labels)[:200]}"
    )


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)[:80]


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise Invalid(f"{field}: {_shown(value)} given, a text wanted", field)
    return value
