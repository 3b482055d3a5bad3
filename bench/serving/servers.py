"""Servers, ours and others: how each is started, asked and stopped. Every one has a process group of its own.

name              serves                                             started by
distilora         the run, as `distilora serve RUN` does             this Python
distilora_*       its exports to onnx-int8 and openvino              this Python
litserve          its export to onnx (fp32), in ONNX Runtime         SERVING_LITSERVE, a Python
infinity          its export to merged, or to onnx                   SERVING_INFINITY, a Python
pipeline          its export to merged, FastAPI around `pipeline`    this Python
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT
from bench.serving import EXPORTS, OURS, PEERS, Row

PEER_FILES = Path(__file__).parent / "peers"
PACKAGES = ("litserve", "infinity-emb", "schemathesis", "fastapi", "uvicorn", "starlette", "onnxruntime", "openvino", "optimum",
            "torch", "transformers", "tokenizers", "numpy")  # fmt: skip
VERSIONS = (
    "import json, sys, importlib.metadata as m\n"
    "have = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
    "print(json.dumps({'python': sys.version.split()[0], **{n: have[n] for n in sys.argv[1:] if n in have}}))"
)
VARIABLES = {"litserve": "SERVING_LITSERVE", "infinity": "SERVING_INFINITY", "schemathesis": "SERVING_SCHEMATHESIS"}
START_S, STOP_S, ANSWER_S = 180, 60, 60
OURS_AS = "imdb"  # the served name: the service's own examples ask for it


def _first(answer: Any) -> str:
    return str(answer["label"])


@dataclass(frozen=True)
class Api:
    """A server's API: path, a text's body, and the label in an answer."""

    path: str
    body: Callable[[str], Row]
    label: Callable[[Any], str] = _first


OURS_API = Api("/v1/classify", lambda text: {"input": text}, lambda answer: str(answer["answers"][0]["label"]))
APIS = {
    **dict.fromkeys((OURS, *EXPORTS), OURS_API),
    "litserve": Api("/predict", lambda text: {"text": text}),
    "pipeline": Api("/classify", lambda text: {"text": text}),
    "infinity": Api(
        "/classify",
        lambda text: {"model": "reviews", "input": [text]},
        lambda answer: str(max(answer["data"][0], key=lambda label: label["score"])["label"]),
    ),
}


def python_of(name: str) -> str:
    """Return the Python that a contender or tool runs on; '' if its environment variable does not name one."""
    return os.environ.get(VARIABLES[name], "") if name in VARIABLES else sys.executable


def versions(name: str) -> Row:
    """Return the versions of the packages that a contender runs on."""
    command = [python_of(name), "-c", VERSIONS, *PACKAGES]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def environment(own: bool) -> dict[str, str]:
    """Return the environment of a process: no network, no telemetry; our packages only if it is our `own`."""
    kept = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    silent = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **silent, **({"PYTHONPATH": path} if own else {})}


def serve_ours(*words: str) -> list[str]:
    """Return the command of our service; the port is added by `started`."""
    return [sys.executable, "-m", "distilora", "serve", *words]


class Server:
    """A server that runs."""

    def __init__(self, command: Sequence[str], port: int, folder: Path, log: Any, own: bool) -> None:
        self.port, self.log, self.stopped = port, log, False
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**environment(own), "HF_HOME": str(folder)},
            start_new_session=True,
        )  # fmt: skip

    @property
    def base(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(raw) if raw[:1] in (b"{", b"[", b'"') else raw

    def wait(self) -> None:
        """Return when it is ready. Raises RuntimeError with the end of its log if it is not in time."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.logged()[-3000:]}")

    def logged(self) -> str:
        """Return what it wrote so far."""
        self.log.seek(0)
        return str(self.log.read())

    def answered(self, route: str) -> dict[str, int]:
        """Count the statuses that our service logged for a route."""
        lines = [json.loads(line) for line in self.logged().splitlines() if line.startswith("{")]
        return count(line["status"] for line in lines if line["event"] == "request" and line["route"] == route)

    def stop(self) -> int:
        """End it and its children; return its exit code. Those that do not end when asked are killed."""
        if not self.stopped:
            self.stopped = True
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


@contextmanager
def started(command: Sequence[str], port: int, own: bool = True) -> Iterator[Server]:
    """Start a server, in a folder of its own, and stop it at the end. Raises RuntimeError if it does not start."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("a+") as log:
        server = Server(command, port, Path(folder), log, own)
        try:
            server.wait()
            yield server
        finally:
            server.stop()


@contextmanager
def started_ours(*words: str) -> Iterator[Server]:
    """Start our service."""
    port = free_port()
    with started([*serve_ours(*words), "--port", str(port)], port) as server:
        yield server


@contextmanager
def started_contender(name: str, run: Path, work: Path, how: Row) -> Iterator[Server]:
    """Start a contender with settings; ours has its defaults, except that no request is logged, as with the others."""
    port = free_port()
    if name in PEERS:
        command = [python_of(name), str(PEER_FILES / f"{name}_app.py"), str(work), str(port), json.dumps(how)]
    else:
        folder = run if name == OURS else work / EXPORTS[name]
        command = [*serve_ours(f"{OURS_AS}={folder}", "--access-log", "off"), "--port", str(port)]
    with started(command, port, own=name not in PEERS) as server:
        yield server


def free_port() -> int:
    """Return a port that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def count(statuses: Any) -> dict[str, int]:
    """Count statuses, as JSON has them."""
    return {str(status): number for status, number in sorted(Counter(statuses).items())}
