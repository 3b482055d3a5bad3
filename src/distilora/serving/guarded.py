"""HTTP parser with limits that uvicorn's has not: bytes and seconds that the head of a request may take."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 512 * 1024  # of what arrives before a head is complete; with it may come the beginning of a body
HEAD_S = 15.0  # from a connection, or the first byte of a later request, to its complete head


class Guarded(HttpToolsProtocol):
    """Connection that is closed if the head of a request grows too large or does not arrive."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head, self._head_bytes = True, 0
        self._late: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes, as long as a head does not grow too large."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("Request head too large.")
                return
            if self._late is None:
                self._late = self.loop.call_later(HEAD_S, self.transport.abort)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Take the body from now on."""
        self._in_head, self._head_bytes = False, 0
        self._on_time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take the next head from now on."""
        self._in_head = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._on_time()
        super().connection_lost(exc)

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
