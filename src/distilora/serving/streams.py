"""Answers a stream of lines, NDJSON in and out: in order, with a window of lines in memory and in the queue, however long it is.

What cannot be answered has {"error": ...} in its place. Where the queue is full, the stream waits: it may take long, and others
are served first. It ends early, with an error as its last line, when its body breaks off or the service stops.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from distilora.serving.bodies import lines
from distilora.serving.logs import log
from distilora.serving.refusals import ClientGone, Failed, Invalid, Overloaded, Refusal, TooLarge
from distilora.serving.replies import error_of, json_bytes
from distilora.serving.service import Service

WINDOW = 64  # lines being answered
PATIENCE = 0.1  # seconds between two attempts to enter a full queue
Line = Callable[[bytes], Awaitable[bytes]]
_ONLY_INPUT = re.compile(r"inputs?(\[0\])?(?!\w)")


class Streamed(Response):
    """Response of a stream; `line` answers a line that is not blank. It reads the body itself."""

    media_type = "application/x-ndjson"
    background: BackgroundTask | None = None

    def __init__(self, service: Service, line: Line) -> None:
        self.status_code = 200
        self.init_headers({"content-type": self.media_type, "x-accel-buffering": "no"})
        self._service, self._line = service, line
        self._ended: Refusal | None = None  # why no more lines are read, other than at the end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer line by line."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(WINDOW)
        reader = asyncio.create_task(self._read(receive, answers))
        tasks: set[asyncio.Task[Any]] = {reader}
        try:
            while (answer := await answers.get()) is not None:
                tasks.add(answer)
                await self._send(send, await answer)
                tasks.remove(answer)
            await reader
            if isinstance(self._ended, ClientGone):
                raise self._ended
            if self._ended is not None:
                await self._send(send, json_bytes({"error": error_of(self._ended)}))
            await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            log(logging.INFO, "stream broken off", request_id=scope["distilora.call"].request_id)
        finally:
            while not answers.empty():
                if (answer := answers.get_nowait()) is not None:
                    tasks.add(answer)
            for task in tasks:
                task.cancel()

    async def _read(self, receive: Receive, answers: "asyncio.Queue[asyncio.Task[bytes] | None]") -> None:
        """Begin to answer each line; one that is answered makes room for the next."""
        number = 0
        try:
            async for raw in lines(receive, self._service.limits, lambda: self._service.phase == "draining"):
                await answers.put(asyncio.create_task(self._answer(number, raw)))
                number += 1
        except Refusal as error:
            self._ended = error
        await answers.put(None)

    async def _answer(self, number: int, raw: bytes | None) -> bytes:
        """Answer a line, with an error if need be; wait for a place in the queue as long as a request may take."""
        until = time.monotonic() + self._service.limits.timeout_ms / 1000
        while True:
            try:
                return await self._line(self._checked(raw))
            except Overloaded as error:
                if time.monotonic() < until:
                    await asyncio.sleep(PATIENCE)
                    continue
                refusal: Refusal = error
            except Refusal as error:
                refusal = error
            except Exception as error:
                log(logging.ERROR, "failed", error, input=number)
                refusal = Failed("the service failed on this input; its log says how")
            self._service.measures.refused(refusal.kind)
            return json_bytes({"error": _placed(refusal, number)})

    def _checked(self, raw: bytes | None) -> bytes:
        """Return a line that can be read. Raises TooLarge for None, which stands for a line that was too long, Invalid."""
        if raw is None:
            most = self._service.limits.body_bytes
            raise TooLarge(f"input: more than {most:,} bytes given (limit body_bytes); shorten the line")
        if not raw.strip():
            raise Invalid("input: the line is blank; give an input, or leave the line out")
        return raw

    async def _send(self, send: Send, line: bytes) -> None:
        """Send a line. Raises ClientGone if nobody takes it."""
        message = {"type": "http.response.body", "body": line + b"\n", "more_body": True}
        try:
            await asyncio.wait_for(send(message), self._service.limits.timeout_ms / 1000)
        except TimeoutError:
            raise ClientGone("the client reads no answers") from None


def _placed(refusal: Refusal, number: int) -> dict[str, Any]:
    """Name the line as the field at fault: to the reader of one line it is the only input."""
    error, field = error_of(refusal), f"input[{number}]"
    if only := _ONLY_INPUT.match(error["message"]):
        error["message"] = field + error["message"][only.end() :]
    return {**error, "field": field}
