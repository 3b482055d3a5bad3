"""Connections whose head grows too large or does not arrive are closed; those that wait for a next request are not."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from distilora.serving import guarded


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(guarded, "HEAD_S", 0.4)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    own = socket.socket()
    own.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=guarded.Guarded, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
    number = own.getsockname()[1]
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(10)


def answered(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\nx: "])
def test_a_head_that_does_not_arrive(part: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(part)
        begun = time.monotonic()
        assert answered(connection) == b""
        assert 0.2 < time.monotonic() - begun < 3


def test_a_connection_that_is_kept(port: int) -> None:
    whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(3):
            connection.sendall(whole[:20])
            time.sleep(0.1)
            connection.sendall(whole[20:] + b"x")
            time.sleep(0.6)  # a body may take longer than a head
            connection.sendall(b"x")
            assert answered(connection).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.6)
        connection.sendall(b"GET / HT")
        assert answered(connection) == b""


def test_a_head_that_grows_too_large(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "HEAD_BYTES", 10_000)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000)
        assert answered(connection).startswith((b"HTTP/1.1 400 ", b""))
