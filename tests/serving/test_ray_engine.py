"""Ray Serve answers from two replicas as the service of a process does, also while one of them is killed, and stops as it does."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.descendants import descendants
from support.service_process import KEY, Served
from support.tiny import tiny_reviews

from distilora.inference.predictor import load
from distilora.serving import ray_engine
from distilora.serving.ray_engine import _check_cluster, _drained, _reason, _start

TEXTS = [text for text, _ in tiny_reviews(20, 6)]
CLIENTS = 4


def of_serve() -> None:
    """Skip the test where Ray Serve is not installed."""
    pytest.importorskip("ray.serve", exc_type=ImportError)


@pytest.fixture
def served(finished: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    (tmp_path / "keys").write_text(KEY + "\n")
    started: list[Served] = []

    def start(*words: str) -> Served:
        keys = ("--api-key-file", str(tmp_path / "keys"))
        started.append(Served(f"reviews={finished}", *keys, "--engine", "ray", "--precision", "fp32", *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=30)


class Clients:
    """Clients that ask for the same texts again and again; `counts` are the statuses, `wrong` answers that are not predict's."""

    def __init__(self, service: Served, expected: list[dict[str, Any]]) -> None:
        self.counts: Counter[Any] = Counter()
        self.wrong: list[Any] = []
        self._service, self._expected, self._over = service, expected, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            number = (number + 1) % len(TEXTS)
            try:
                status, answer = self._service.ask("/v1/classify", {"input": TEXTS[number]}, timeout=60)
            except OSError as error:
                self.counts[type(error).__name__] += 1
                continue
            self.counts[status] += 1
            if status == 200:
                given, own = answer["answers"][0], self._expected[number]
                if given["label"] != own["label"] or abs(given["score"] - own["score"]) > 1e-4:
                    self.wrong.append((given, own))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def replicas(service: Served) -> set[int]:
    return {child for child, line in descendants(service.process.pid).items() if line.startswith("ray::ServeReplica")}


def until(met: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition is met; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_replica_killed_under_load(served: Callable[..., Served], finished: Path) -> None:
    of_serve()
    service = served("--replicas", "2", "--grace", "0.2")
    assert service.names == ["reviews"]
    assert len(replicas(service)) == 2
    assert service.ask("/readyz") == (200, {"status": "ready"})
    assert service.ask("/v1/classify", {"input": "superb"}, authorization="Bearer no")[0] == 401

    clients = Clients(service, load(finished, "fp32")(TEXTS))
    until(lambda: clients.counts[200] > 50, 60)
    victim = min(replicas(service))
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in (now := replicas(service)) and len(now) == 2, 90)
    before = clients.counts[200]
    until(lambda: clients.counts[200] > before + 100, 60)
    clients.stop()
    assert clients.wrong == []
    assert set(clients.counts) <= {200, 500}  # no client was left without an answer
    assert clients.counts[500] <= CLIENTS  # what the victim had accepted, and nothing else
    until(lambda: service.ask("/readyz")[0] == 200, 30)

    family = set(descendants(service.process.pid))
    late = socket.create_connection(("127.0.0.1", service.port))
    head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
    late.sendall(
        f'{head}content-length: 19\r\nconnection: close\r\n\r\n{{"input":'.encode()
    )  # accepted before the signal
    time.sleep(0.3)

    def finish() -> None:
        time.sleep(1)
        late.sendall(b' "superb"}')

    finishing = threading.Thread(target=finish)
    finishing.start()
    code, _, _ = service.stop()  # Ray's line about the victim is on stdout
    finishing.join()
    late.settimeout(10)
    assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
    late.close()
    assert code == 0
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in family), 10)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of two cores, which wants a token."""
    of_serve()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["start", "--head", "--port", str(port), "--num-cpus", "2", "--include-dashboard", "false", "--block"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "ray.scripts.scripts", *words, "--node-ip-address", "127.0.0.1"]
    cluster = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    address = f"127.0.0.1:{port}"
    until(lambda: listens(port), 60)
    yield address
    cluster.terminate()
    cluster.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_cluster_that_exists(
    served: Callable[..., Served], head: str, finished: Path, metrics: dict[str, Any]
) -> None:
    service = served("--replicas", "2", "--address", head, "--grace", "0")
    assert service.ask("/v1/classify", {"input": TEXTS[0]})[0] == 200
    (listed,) = service.ask("/v1/models")[1]["models"]
    assert listed["figures"]["accuracy"] == metrics["evaluations"][0]["metrics"]["accuracy"]  # of the copy
    words = [sys.executable, "-m", "distilora", "serve", str(finished), "--engine", "ray", "--port", "0"]
    another = subprocess.run([*words, "--address", head], capture_output=True, text=True, timeout=120)
    assert another.returncode == 2
    assert another.stderr.splitlines()[-1].startswith("distilora: --address: Ray Serve runs on that cluster already")
    assert service.stop()[0] == 0
    many = subprocess.run([*words, "--address", head, "--replicas", "9"], capture_output=True, text=True, timeout=120)
    assert many.returncode == 2
    assert "--replicas: 9 given, the cluster has 2 cores; give at most as many" in many.stderr.splitlines()[-1]


def test_what_a_replica_failed_with_is_told() -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Deploying application distilora failed")

    deployment = SimpleNamespace(
        message="failed 1 times\ndistilora.errors.EncoderError: encoder: not found; install it."
    )
    application = SimpleNamespace(deployments={ray_engine.NAME: deployment})
    serve = SimpleNamespace(
        deployment=lambda **_: lambda kind: SimpleNamespace(bind=lambda job: job), ingress=lambda: lambda kind: kind,
        start=lambda **_: None, run=fail, status=lambda: SimpleNamespace(applications={ray_engine.NAME: application}),
    )  # fmt: skip
    cluster = ray_engine.Cluster(1, None, "127.0.0.1", 0, 0.0, 1.0, 20)
    with pytest.raises(ray_engine.EngineError, match=r"did not start \(encoder: not found; install it\); fix that"):
        _start(serve, SimpleNamespace(threads=1), cluster)


def test_the_reason_of_a_failure_is_a_line_of_the_replica() -> None:
    told = "Deploying app failed: The deployment failed to start 1 times. Error:\nTraceback ...\n  File x\n"
    own = "distilora.errors.EncoderError: encoder minilm: not found; install it.\n"
    assert _reason(told + own) == "encoder minilm: not found; install it"
    assert _reason(told + "ValueError: 7\n\n") == "ValueError: 7"
    assert _reason("") == "no reason given"


class Actor:
    """A replica's actor in this process: alive, busy, or dead."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.__ray_ready__ = SimpleNamespace(remote=lambda: self)


class Busy(Exception):
    pass


class Dead(Exception):
    pass


def get(reference: Any, timeout: float | None = None) -> Any:
    if isinstance(reference, Actor) and reference.error:
        raise reference.error
    return reference


@pytest.mark.parametrize(
    ("actors", "outcomes", "drained"),
    [
        ({"a": Actor(), "b": Actor()}, {"a": True, "b": True}, True),
        ({"a": Actor(), "b": Actor()}, {"a": True, "b": False}, False),
        ({"a": Actor(), "b": Actor()}, {"a": True}, False),
        ({"a": Actor(), "b": Actor(Busy())}, {"a": True}, False),
        ({"a": Actor(), "b": Actor(Dead())}, {"a": True}, True),
    ],
    ids=["all", "cut off", "late", "busy", "dead"],
)
def test_it_is_drained_when_every_replica_that_lives_says_so(
    actors: dict[str, Actor], outcomes: dict[str, bool], drained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "CLOSING_S", 0)
    told = []
    state = SimpleNamespace(remote=lambda: (actors, outcomes))
    board = SimpleNamespace(leave=SimpleNamespace(remote=lambda: told.append("leave")), state=state)
    exceptions = SimpleNamespace(GetTimeoutError=Busy, RayActorError=Dead)
    assert _drained(SimpleNamespace(get=get, exceptions=exceptions), board, 0.3) is drained
    assert told == ["leave"]


def test_a_cluster_where_serve_runs_or_with_too_few_cores_is_refused() -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 3.0})
    idle = SimpleNamespace(status=lambda: SimpleNamespace(proxies={}, applications={}))
    _check_cluster(ray, idle, 3)
    with pytest.raises(ray_engine.ConfigError, match="--replicas: 4 given, the cluster has 3 cores"):
        _check_cluster(ray, idle, 4)
    busy = SimpleNamespace(status=lambda: SimpleNamespace(proxies={"a": "HEALTHY"}, applications={}))
    with pytest.raises(ray_engine.EngineError, match="--address: Ray Serve runs on that cluster already"):
        _check_cluster(ray, busy, 1)
