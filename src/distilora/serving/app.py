"""The application: all routes put together, and the door that every request goes through.

    door    request id -> key -> phase -> route -> security headers -> measures -> log line

A refusal closes the connection where the body may not have been read. Under overload that would cost more than the refusal: a
small body is read first, if it has come, and the connection is kept.

Whatever happens behind the door, the client gets one line without a path, a trace or a key, and the log gets the rest.
"""

import asyncio
import logging
import re
import time
import uuid
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilora.errors import DistiloraError
from distilora.serving import admin, inference_protocol, native, operations, tei
from distilora.serving.bodies import Body
from distilora.serving.logs import log
from distilora.serving.refusals import (
    ClientGone,
    Failed,
    Invalid,
    NoSuchRoute,
    Overloaded,
    Refusal,
    TooLarge,
    Unauthorised,
    WrongMethod,
    stopped,
)
from distilora.serving.replies import refuse
from distilora.serving.service import Call, Service
from distilora.version import __version__

ABOUT = "Answers texts with models that distilora fine-tuned: labels, numbers, spans, summaries."
PROBES = ("/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready")
ALWAYS = (*PROBES, "/metrics")  # answered while the service is being stopped
HEADERS = {
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'", "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin", "permissions-policy": "camera=(), geolocation=(), microphone=()",
}  # fmt: skip
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# FastAPI would trace requests, and what went wrong in them, for whatever collects such things in the process
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}


def application(service: Service, *more: APIRouter) -> FastAPI:
    """Create the application of a service, with more routes if there are any."""
    app = FastAPI(
        title="distilora serve", description=ABOUT, version=__version__, docs_url=None, redoc_url=None,
        redirect_slashes=False, telemetry=_SILENT,
    )  # fmt: skip
    routers = [
        native.routes(service),
        tei.routes(service),
        inference_protocol.routes(service),
        operations.routes(service),
    ]
    if service.admin_keys:
        routers.append(admin.routes(service))
    for router in (*routers, *more):
        app.include_router(router)

    @app.exception_handler(DistiloraError)
    async def distilora_error(request: Request, error: DistiloraError) -> Response:
        return _refused(service, request.scope, error if isinstance(error, Refusal) else Invalid(str(error)))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            refusal: Refusal = WrongMethod(f"{request.method}: another method wanted here; see /openapi.json")
        else:
            refusal = NoSuchRoute("nothing is here; see /openapi.json")
        answer = _refused(service, request.scope, refusal)
        answer.headers.update(error.headers or {})
        return answer

    app.add_middleware(Door, service=service, is_open=frozenset({*PROBES, *operations.page_files()}))
    if service.origins:  # around the door, so that a page may also read why it was refused
        app.add_middleware(
            CORSMiddleware, allow_origins=service.origins, allow_methods=["GET", "POST"], max_age=600,
            allow_headers=["authorization", "content-type", "x-request-id"], expose_headers=["x-request-id", "retry-after"],
        )  # fmt: skip
    app.openapi = lambda: _openapi(app, bool(service.keys))  # type: ignore[method-assign]
    return app


class Door:
    """ASGI middleware that every request goes through; `is_open` are paths that need no key."""

    def __init__(self, app: ASGIApp, service: Service, is_open: frozenset[str]) -> None:
        self._app, self._service, self._open = app, service, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it; answer it in any case."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked_id = headers.get("x-request-id", "")
        call = scope["distilora.call"] = Call(asked_id if _REQUEST_ID.fullmatch(asked_id) else uuid.uuid4().hex)
        status = 0
        body = Body(receive, headers)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                if message["status"] == Overloaded.status and await body.at_hand():
                    del own["connection"]
                elif message["status"] == TooLarge.status and "expect" not in headers:
                    await body.discard()
                status = message["status"]
                if not self._service.on_ray:
                    own["x-request-id"] = call.request_id
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        task = cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            self._admit(scope, headers, call)
            if scope["path"] not in ALWAYS:
                self._service.enter(task)
            await self._app(scope, body.receive, sending)
        except Refusal as refusal:
            if not status:
                await _refused(self._service, scope, refusal)(scope, body.receive, sending)
        except asyncio.CancelledError:
            if not self._service.cut:
                raise
            task.uncancel()
            if not status:
                await _refused(self._service, scope, stopped())(scope, body.receive, sending)
        except Exception as error:
            log(logging.ERROR, "failed", error, request_id=call.request_id, route=_route(scope))
            if not status:
                failed = Failed("the service failed on this request; its log says how, under the request's id")
                await _refused(self._service, scope, failed)(scope, body.receive, sending)
        finally:
            self._service.leave(task)
            self._note(scope, call, status)

    def _admit(self, scope: Scope, headers: Headers, call: Call) -> None:
        """Find out who asks. Raises Unauthorised for whoever has no key, where one is wanted."""
        call.client = (scope.get("client") or ("local",))[0]
        path, given = scope["path"], headers.get("authorization")
        is_admin = path == "/admin" or path.startswith("/admin/")
        keys = self._service.admin_keys if is_admin else self._service.keys
        if not keys or scope["method"] == "OPTIONS" or (path in self._open and scope["method"] in ("GET", "HEAD")):
            return
        holder = keys.holder(given)
        if holder is None:
            what = "no key given" if given is None else "unknown key"
            raise Unauthorised(f"authorization: {what}; send the header Authorization: Bearer KEY", "authorization")
        call.client = holder

    def _note(self, scope: Scope, call: Call, status: int) -> None:
        """Measure a request, write its line, and trace it: the template of its route, never what the client sent."""
        seconds, route, service = time.monotonic() - call.arrived, _route(scope), self._service
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"
        if service.measures.shared:
            service.measures.look(service.batcher, service.pool, service.flying)
        service.measures.answered(route, method, status, seconds)
        for stage, spent in call.seconds.items():
            service.measures.spent(stage, spent)
        if route in ALWAYS and status < 400:
            return
        fields: dict[str, Any] = {
            "request_id": call.request_id, "method": method, "route": route, "status": status, "client": call.client,
            "ms": {"total": _ms(seconds), **{stage: _ms(spent) for stage, spent in call.seconds.items()}},
        }  # fmt: skip
        if call.model is not None:
            fields |= {"model": call.model, "inputs": call.inputs, "tokens": call.tokens}
        if service.log_requests:
            log(logging.INFO, "request", **fields)
        if service.traces:
            service.traces.record(Headers(scope=scope), seconds, fields)


def _refused(service: Service, scope: Scope, refusal: Refusal) -> Response:
    """Reply with a refusal; log the cause of one that is our fault."""
    call: Call = scope["distilora.call"]
    service.measures.refused(refusal.kind)
    if isinstance(refusal, Failed) and refusal.__cause__ is not None:
        log(logging.ERROR, "failed", refusal, request_id=call.request_id, route=_route(scope), model=call.model)
    elif isinstance(refusal, ClientGone):
        log(logging.INFO, "client gone", request_id=call.request_id, route=_route(scope))
    return refuse(refusal, scope["path"], call.request_id)


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "other"


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _openapi(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's, with the shapes inside bodies moved to where they are referred to."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for operations_at in document["paths"].values():
            for operation in operations_at.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]  # names in a path are texts: they cannot be invalid
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    for name, schema in content["schema"].pop("$defs", {}).items():
                        schemas.setdefault(name, schema)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        if keyed:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
