"""The socket: it listens from the start, and no two have one port."""

import socket

import pytest

from distilora.errors import ConfigError
from distilora.serving.server import bound


def test_a_port_is_taken_before_anything_is_accepted() -> None:
    with bound("127.0.0.1", 0) as own:
        port = own.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^--port: {port} on 127.0.0.1 cannot be used "):
            bound("127.0.0.1", port)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    bound("127.0.0.1", port).close()  # at once, though a connection was there
