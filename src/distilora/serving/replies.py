"""Replies: JSON without NaN, and refusals in the form that the clients of each API expect.

native      {"error": {"kind", "message", "field"?}, "request_id"}
TEI         {"error", "error_type"}                          /predict, /info, /health, /tokenize
v2          {"error"}                                        /v2/...
"""

import json
from typing import Any

from starlette.responses import Response

from distilora.serving.refusals import Refusal

JSON = "application/json"
TEI_PATHS = ("/predict", "/info", "/health", "/tokenize")
# the contract's error types; whatever is not here is Validation
_TEI_TYPES = {"overloaded": "Overloaded", "deadline_passed": "Overloaded", "failed": "Backend", "draining": "Unhealthy"}


def json_bytes(value: Any) -> bytes:
    """Encode as JSON. Raises ValueError for a number that is not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Reply with JSON."""
    return Response(json_bytes(value), status, headers, JSON)


def error_of(refusal: Refusal) -> dict[str, str]:
    """Return the kind, line and field of a refusal."""
    error = {"kind": refusal.kind, "message": " ".join(str(refusal).splitlines())}
    return error if refusal.field is None else {**error, "field": refusal.field}


def refuse(refusal: Refusal, path: str, request_id: str) -> Response:
    """Reply with a refusal, in the form of the API that the path belongs to."""
    error, status = error_of(refusal), refusal.status
    content: dict[str, Any] = {"error": error, "request_id": request_id}
    if path in TEI_PATHS:
        kind = _TEI_TYPES.get(refusal.kind, "Validation")
        if kind == "Validation" and "blank" in error["message"]:
            kind, status = "Empty", 400
        if kind == "Backend":
            status = 424
        content = {"error": error["message"], "error_type": kind}
    elif path == "/v2" or path.startswith("/v2/"):
        content, status = {"error": error["message"]}, 400 if status == 422 else status
    headers = {}
    if status in (429, 503):
        headers["retry-after"] = str(refusal.retry_after or 1)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status in (401, 408, 413, 415, 429, 503):
        headers["connection"] = "close"  # the body may not have been read
    return reply(content, status, headers)
