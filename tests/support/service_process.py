"""A service in a process of its own, asked as a client would."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

KEY = "a-key-that-is-long-enough"


class Served:
    """A service in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.log = tempfile.TemporaryFile("a+")  # noqa: SIM115 - a pipe that nobody reads would stop it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distilora", "serve", *words, "--port", "0"],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.fullmatch(r"serving (\S+(?:, \S+)*) at http://127\.0\.0\.1:(\d+)\n", self.line)
        assert found, self.line + self.logged()
        self.names, self.port = found[1].split(", "), int(found[2])

    def logged(self) -> str:
        """Return what it wrote on stderr so far."""
        self.log.seek(0)
        return self.log.read()

    def ask(
        self, path: str, body: Any = None, timeout: float = 20, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["content-type"] = "application/json"
        connection.request(
            method or ("GET" if body is None else "POST"), path, content, {"authorization": f"Bearer {KEY}", **headers}
        )
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw

    def send(self, raw: bytes, wait: float = 20) -> bytes:
        """Send bytes as they are; return what comes until the connection is closed."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            try:
                connection.sendall(raw)
                while part := connection.recv(65536):
                    received += part
            except OSError:
                pass
        return received

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=40)
        return self.process.returncode, out, self.logged()
