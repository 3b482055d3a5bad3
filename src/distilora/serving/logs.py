"""Structured logs on stderr: one JSON object a line, with the request's id; never a text, a key, a query or an address's path."""

import json
import logging
import sys
import time
import traceback
from typing import Any

DEEPEST = 8  # causes of an error that are shown
logger = logging.getLogger("distilora.serving")


class JsonLines(logging.Formatter):
    """Formatter of a record, and of the fields in its `fields`, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.gmtime(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = trace(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def trace(error: BaseException | None) -> str:
    """Return the frames and kinds of an error and its causes; a message is shown only of errors that quote no input."""
    parts: list[str] = []
    while error is not None and len(parts) < DEEPEST:
        said = f": {error}" if isinstance(error, RuntimeError | OSError | MemoryError) else ""
        parts.insert(0, "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + said)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)


def log(level: int, event: str, error: BaseException | None = None, **fields: Any) -> None:
    """Write a line, with the trace of an error if one is given."""
    if logger.isEnabledFor(level):
        logger.log(level, event, exc_info=error, extra={"fields": fields})


def to_stderr(level: int) -> None:
    """Send our own lines from `level` on, and the warnings of server and traces, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("distilora.serving", level), ("uvicorn", logging.WARNING), ("opentelemetry", logging.WARNING)):
        own = logging.getLogger(name)
        own.handlers, own.propagate = [handler], False
        own.setLevel(least)
