"""Reads the bodies of requests: JSON within limits of bytes, depth and time, and NDJSON line by line.

Refused are compressed bodies, other encodings than UTF-8, half characters (lone surrogates), NaN and Infinity, also as 1e999.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from distilora.serving.limits import Limits
from distilora.serving.refusals import ClientGone, Draining, Invalid, TooLarge, TooSlow, Unsupported

JSON, NDJSON = "application/json", "application/x-ndjson"
LOOK_UP_S = 0.5  # between two looks at whether the service stops, while a stream sends nothing
SMALL = 64 * 1024  # bytes of a body that is read after a refusal, so that the connection can be kept
AT_HAND_S = 0.02  # and seconds that it may still take
DISCARDED = 64 * 1024 * 1024  # bytes of a body that is too large, read so that its client sees the answer
DISCARD_S = 1.0  # and seconds
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def kind_of(value: Any) -> str:
    """Return the name of a JSON value's kind, for messages."""
    return _KINDS.get(type(value), "null")


def content_type(request: Request) -> str:
    """Return the body's media type. Raises Unsupported for a compressed body or another encoding than UTF-8."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unsupported("content-encoding: compressed bodies are not read; send the body as it is")
    kind, *parameters = (part.strip().lower() for part in request.headers.get("content-type", "").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise Unsupported(f"content-type: charset {value!r:.60} given, utf-8 wanted; convert the body")
    return kind


async def read_body(request: Request, limits: Limits, seconds: float) -> bytes:
    """Read a body of JSON.

    Raises Unsupported for another content type, TooLarge before more bytes than the limit are held, TooSlow if it does not
    arrive within so many seconds, ClientGone if it never ends.
    """
    if content_type(request) not in (JSON, ""):
        raise Unsupported(f"content-type: {JSON} wanted; send JSON, with that header")
    if not request.headers.get("content-type"):
        raise Unsupported(f"content-type: none given, {JSON} wanted; send that header")
    _check_length(request, limits)
    parts, size = [], 0
    try:
        async with asyncio.timeout(max(seconds, 0)):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                parts.append(part)
    except TimeoutError:
        raise TooSlow(f"body: not complete after {seconds:.0f} s (limit timeout_ms); send it at once") from None
    except ClientDisconnect:
        raise ClientGone("body: the connection was closed before its end") from None
    return b"".join(parts)


def _check_length(request: Request, limits: Limits) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(
        f"body: more than {limits.body_bytes:,} bytes given (limit body_bytes); send several requests", "body"
    )


def parsed(raw: bytes, depth: int, place: str = "body") -> Any:
    """Parse a JSON text strictly. Raises Invalid, naming `place`, or the field inside it that is at fault."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{place}: byte {error.start + 1} is not UTF-8; encode it so", place) from None
    try:
        value = json.loads(text, parse_constant=_not_a_number)
    except RecursionError:
        raise Invalid(f"{place}: {_deep(depth)}", place) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if place == "body" else f"character {error.pos + 1}"
        raise Invalid(f"{place}: not JSON ({error.msg}, {where}); correct it", place) from None
    except ValueError as error:
        reason = str(error) if isinstance(error, _NotFinite) else "a number has too many digits"
        raise Invalid(f"{place}: {reason}; correct it", place) from None
    _check_values(value, depth, place)
    return value


def _deep(most: int) -> str:
    return f"nested too deeply, at most {most} levels wanted (limit json_depth); flatten it"


class _NotFinite(ValueError):
    """A number that JSON does not have."""


def _not_a_number(name: str) -> NoReturn:
    raise _NotFinite(f"{name} is no number of JSON")


def _check_values(value: Any, most: int, place: str) -> None:
    """Raise Invalid for a value nested deeper than `most`, for half a character, and for a number that is not finite."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 0)]
    while waiting:
        value, name, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value, name or place)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Invalid(f"{name or place}: the number is not finite; give a smaller one", name or place)
        elif isinstance(value, dict | list):
            if depth >= most:
                raise Invalid(f"{place}: {_deep(most)}", place)
            if isinstance(value, list):
                waiting += ((part, f"{name}[{number}]", depth + 1) for number, part in enumerate(value))
            else:
                for key in value:
                    _check_text(key, name or place)
                waiting += (
                    (part, f"{name}.{key:.60}" if name else f"{key:.60}", depth + 1) for key, part in value.items()
                )


def _check_text(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{field!s}: character {error.start + 1} is half a character; correct the text", field) from None


async def lines(
    receive: Callable[[], Awaitable[Any]], limits: Limits, stopping: Callable[[], bool] = lambda: False
) -> AsyncIterator[bytes | None]:
    """Yield the lines of a body as they arrive, None for one that is longer than a body may be; that one is not held.

    Raises TooSlow if nothing arrives for as long as a request may take, ClientGone if the connection is closed before the end,
    Draining if the service is stopping.
    """
    rest, is_long, more = b"", False, True  # of the line that has not ended: its bytes, unless they are too many
    while more:
        message = await _next(receive, limits.timeout_ms / 1000, stopping)
        if message["type"] == "http.disconnect":
            raise ClientGone("body: the connection was closed before its end")
        more = message.get("more_body", False)
        *whole, rest = (rest + message.get("body", b"")).split(b"\n")
        if not more and (rest or (is_long and not whole)):
            whole.append(rest)
        for line in whole:
            if stopping():
                raise Draining("the service is being stopped; send the rest again in a while")
            yield None if is_long or len(line) > limits.body_bytes else line
            is_long = False
        if is_long or len(rest) > limits.body_bytes:
            rest, is_long = b"", True


async def _next(receive: Callable[[], Awaitable[Any]], seconds: float, stopping: Callable[[], bool]) -> Any:
    """Return the next message; look up every now and then. Raises TooSlow, Draining."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            return await asyncio.wait_for(receive(), min(left, LOOK_UP_S))
        except TimeoutError:
            if stopping():
                raise Draining("the service is being stopped; send the rest again in a while") from None
    raise TooSlow(f"body: nothing arrived for {seconds:.0f} s (limit timeout_ms); send it at once")


class Body:
    """The body of a request, and how much of it has been read."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        length = headers.get("content-length", "0" if "transfer-encoding" not in headers else "")
        self._receive = receive
        self._small = length.isdecimal() and len(length) < 10 and int(length) <= SMALL
        self._whole = False

    async def receive(self) -> Message:
        """Receive the next part, as ASGI has it."""
        message = await self._receive()
        self._whole = self._whole or (message["type"] == "http.request" and not message.get("more_body", False))
        return message

    async def at_hand(self) -> bool:
        """Read what is left of a small body; return whether that was possible at once."""
        try:
            async with asyncio.timeout(AT_HAND_S):
                while self._small and not self._whole:
                    if (await self.receive())["type"] == "http.disconnect":
                        return False
        except TimeoutError:
            return False
        return self._whole

    async def discard(self) -> None:
        """Read what still comes of a large body, for a while: a client that is sending would not see its answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                left = DISCARDED
                while left > 0 and not self._whole:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        return
                    left -= len(message.get("body", b""))
