"""A service in this process, and a client that speaks ASGI itself: slowly, brokenly, or not at all."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.types import ASGIApp


class Exchange(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    parts: list[bytes]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(path: str, headers: Sequence[tuple[str, str]], method: str = "POST") -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "scheme": "http",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.1", 1), "server": ("test", 80), "state": {},
    }  # fmt: skip


async def exchange(
    app: ASGIApp, path: str, chunks: Sequence[Any] = (b"",), method: str = "POST",
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),),
) -> Exchange:  # fmt: skip
    """Send a request in chunks; a number is a pause, None hangs up in the middle, and ... after the last chunk."""
    sent: list[dict[str, Any]] = []
    waiting = list(chunks)
    over = asyncio.Event()

    async def receive() -> dict[str, Any]:
        while waiting:
            chunk = waiting.pop(0)
            if chunk in (None, ...):
                return {"type": "http.disconnect"}
            if isinstance(chunk, bytes):
                return {"type": "http.request", "body": chunk, "more_body": waiting not in ([], [...])}
            await asyncio.sleep(chunk)
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope_of(path, headers, method), receive, send)
    over.set()
    start = next((one for one in sent if one["type"] == "http.response.start"), {"status": 0, "headers": []})
    parts = [one.get("body", b"") for one in sent if one["type"] == "http.response.body"]
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return Exchange(start["status"], named, b"".join(parts), parts)
