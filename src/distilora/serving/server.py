"""Runs an application on a socket with uvicorn until a signal, then lets it finish what it accepted.

SIGTERM, SIGINT    /readyz says no -> after the grace no more requests -> accepted ones are answered -> exit
a second one       exit at once
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from distilora.errors import ConfigError
from distilora.serving.guarded import Guarded

if TYPE_CHECKING:
    from distilora.serving.service import Service

CLOSING_S = 1  # for connections to close, after everything was answered or refused
BACKLOG = 2048  # connections that wait to be accepted; the system may allow fewer
KEEP_ALIVE_S = 75  # longer than the usual proxy's, so that it is the proxy that closes


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is a free one. Raises ConfigError if that is not possible.

    It listens at once: of two sockets that are merely bound, both would believe that they have the port, and uvloop does not
    tell of the one that fails to listen later. What connects before the models are loaded waits for them.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host: {host} is no address of this machine ({error.strerror or error})") from None
    own = socket.socket(family, kind, proto)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(address)
        own.listen(BACKLOG)
    except OSError as error:
        own.close()
        reason = error.strerror or error
        raise ConfigError(f"--port: {port} on {host} cannot be used ({reason}); give another --port") from None
    own.set_inheritable(True)
    return own


def address_of(own: socket.socket) -> str:
    """Return where a socket is reached, as http://127.0.0.1:8000."""
    host, port = own.getsockname()[:2]
    return f"http://[{host}]:{port}" if own.family == socket.AF_INET6 else f"http://{host}:{port}"


def run(
    app: Any, service: "Service", own: socket.socket, grace: float, seconds: float, announce: Callable[[], None]
) -> bool:
    """Serve until a signal; return whether everything that was accepted was answered.

    Args:
        grace: seconds for which requests are still accepted after the signal.
        seconds: from the signal to when what is not answered is cut off; closing takes a second or two more.
        announce: called when the socket listens.
    """
    config = uvicorn.Config(
        app, http=Guarded, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=CLOSING_S,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_serve(uvicorn.Server(config), service, own, grace, seconds, announce))


async def _serve(
    server: uvicorn.Server, service: "Service", own: socket.socket, grace: float, seconds: float, announce: Callable[[], None]
) -> bool:  # fmt: skip
    stopping: list[asyncio.Task[bool]] = []

    async def stop() -> bool:
        drained = await service.stop(grace, seconds)
        server.should_exit = True
        return drained

    def leave() -> None:
        if stopping:
            server.should_exit = server.force_exit = True
        else:
            stopping.append(asyncio.create_task(stop()))

    serving = asyncio.create_task(server.serve(sockets=[own]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT):  # after uvicorn's own, which would end the process by the signal
        asyncio.get_running_loop().add_signal_handler(number, leave)
    if not serving.done():
        announce()
    await serving
    if not stopping:
        return False
    if not stopping[0].done():
        stopping[0].cancel()
        return False
    return stopping[0].result()
