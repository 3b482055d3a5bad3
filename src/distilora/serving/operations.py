"""What operators and browsers ask: /livez, /readyz, /health, /metrics, and the page at `/` with its files."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

from distilora.serving import shapes
from distilora.serving.refusals import Draining, Unauthorised
from distilora.serving.replies import reply
from distilora.serving.service import Service
from distilora.serving.tei import TeiError

PAGE = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".webmanifest": "application/manifest+json",
}  # fmt: skip
# what a page may do: read its own files, ask its own service, show pictures that are part of it, hand over a file to save
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Status(shapes.Shape):
    """A state in a word."""

    status: str


def routes(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(tags=["operations"])

    @router.get("/livez", summary="Tell whether the process runs", responses={200: shapes.given(Status, "It does")})
    async def livez(request: Request) -> Response:
        return reply({"status": "alive"})

    @router.get(
        "/readyz",
        summary="Tell whether requests are welcome",
        description="A real forward pass, at most 5 s old, has given what it should, and the service is not being stopped.",
        responses={200: shapes.given(Status, "They are"), 503: {"model": Status, "description": "They are not"}},
    )
    async def readyz(request: Request) -> Response:
        ready = await service.ready()
        if ready:
            return reply({"status": "ready"})
        return reply({"status": "failing" if service.phase == "serving" else service.phase}, 503)

    @router.get(
        "/health",
        summary="Tell whether requests are welcome, for text-embeddings-inference's clients",
        responses={200: {"description": "They are"}, 503: {"model": TeiError, "description": "They are not"}},
        response_class=Response,  # whose body is empty
    )
    async def health(request: Request) -> Response:
        if await service.ready():
            return Response(status_code=200)
        raise Draining("unhealthy: the service is being stopped, or its models do not answer", retry_after=5)

    if not service.on_ray:

        @router.get(
            "/metrics",
            summary="Measures for Prometheus",
            responses={
                200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Measures"},
                **shapes.refused(Unauthorised),
            },
        )
        async def metrics(request: Request) -> Response:
            service.measures.look(service.batcher, service.pool, service.flying)
            return Response(service.measures.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, file in page_files().items():
        router.add_api_route(path, _served(file), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def page_files() -> dict[str, Path]:
    """Return the files of the page, by the paths at which they are served."""
    files = {f"/page/{file.name}": file for file in sorted(PAGE.glob("*")) if file.suffix in KINDS}
    index = files.pop("/page/index.html", None)
    return files if index is None else {"/": index, **files}


def _served(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of a file, which is read once; a browser that has it is told so."""
    content = file.read_bytes()
    headers = {
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "cache-control": "no-cache", "content-security-policy": POLICY
    }  # fmt: skip

    async def serve(request: Request) -> Response:
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=KINDS[file.suffix])

    return serve
