"""A replica: the service of a process from copies of its models, which leaves when it is told, and says when it is not sound."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora import progress
from distilora.artifact.format import read_artifact
from distilora.errors import ConfigError
from distilora.serving import replica as module
from distilora.serving.limits import Limits
from distilora.serving.replica import Board, Job, Replica, carried
from distilora.serving.settings import Settings


class Told:
    """The board, in this process: `leave` is set when replicas are to leave; `outcomes` are how they left."""

    def __init__(self) -> None:
        self.leave, self.outcomes = threading.Event(), {}
        self.join = SimpleNamespace(remote=lambda name, actor: self.leave.wait())
        self.left = SimpleNamespace(remote=self.outcomes.__setitem__)


@pytest.fixture
def made(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bool], tuple[Replica, Told]]]:
    """Makes a replica of the finished run, from a copy of its files or from its folder, and the board that it follows."""
    context = SimpleNamespace(get_actor_id=lambda: "seven", current_actor=None)
    ray = SimpleNamespace(
        get=lambda reference: reference, exceptions=SimpleNamespace(RayError=RuntimeError), get_runtime_context=lambda: context
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(module, "use_threads", lambda count: None)
    own = logging.getLogger("distilora.serving"), logging.getLogger("uvicorn")
    before = [(one.handlers, one.propagate, one.level) for one in own]
    monkeypatch.chdir(tmp_path)
    replicas: list[Replica] = []

    def make(copied: bool) -> tuple[Replica, Told]:
        runs, board = {"reviews": str(finished)}, Told()
        settings = Settings(runs, Limits(lanes=1), "fp32", on_ray=True)
        job = Job(
            settings, board, carried(runs) if copied else None, 1, str(tmp_path), None, logging.WARNING, 0.2, 5.0
        )  # fmt: skip
        replicas.append(Replica(job))
        return replicas[-1], board

    yield make
    for replica in replicas:
        replica._job.board.leave.set()
        replica._service.close()
    for one, (handlers, propagate, level) in zip(own, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)
    progress.quiet(False)


@pytest.mark.parametrize("copied", [True, False])
def test_it_answers_as_the_service_does(made: Any, copied: bool, metrics: dict[str, Any]) -> None:
    client = TestClient(made(copied)[0].__serve_build_asgi_app__())
    assert client.post("/v1/classify", json={"input": "superb"}).json()["answers"][0]["label"] == "pos"
    told = client.get("/v1/models/reviews").json()
    assert told["figures"]["accuracy"] == metrics["evaluations"][0]["metrics"]["accuracy"]
    assert "## Training" in told["card"]


def test_what_is_of_one_replica_only_is_not_told(made: Any) -> None:
    client = TestClient(made(False)[0].__serve_build_asgi_app__())
    answer = client.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "no_such_route")
    assert "x-request-id" not in answer.headers  # Ray's proxy adds it, beside any other
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]
    assert client.post("/v1/corrections", json={"input": "a"}).json()["error"]["kind"] == "no_corrections"


def test_it_leaves_when_it_is_told(made: Any) -> None:
    replica, board = made(False)
    client = TestClient(replica.__serve_build_asgi_app__())
    assert client.get("/readyz").status_code == 200
    board.leave.set()
    until = time.monotonic() + 0.15
    while client.get("/readyz").json() != {"status": "leaving"} and time.monotonic() < until:
        time.sleep(0.01)
    assert client.get("/readyz").json() == {"status": "leaving"}
    assert client.post("/v1/classify", json={"input": "superb"}).status_code == 200
    until = time.monotonic() + 5
    while not board.outcomes and time.monotonic() < until:
        time.sleep(0.01)
    assert board.outcomes == {"seven": True}
    assert client.post("/v1/classify", json={"input": "superb"}).json()["error"]["kind"] == "draining"


def test_it_is_healthy_while_its_models_compute_what_they_ought_to(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, _ = made(False)
    asyncio.run(replica.check_health())
    replica._service.phase = "draining"  # which is no reason to replace it
    asyncio.run(replica.check_health())
    monkeypatch.setattr(replica._service.pool, "alive", lambda: False)
    replica._service._probe = None
    with pytest.raises(RuntimeError, match="do not compute what they ought to"):
        asyncio.run(replica.check_health())


def test_what_is_carried_to_another_machine(finished: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = carried({"run": str(finished), "export": str(graphs)})
    own = {"artifact.json", *read_artifact(finished).files}
    assert set(models["run"]) == {f"model/{name}" for name in own} | {"README.md", "metrics.json"}
    assert set(models["export"]) == {"artifact.json", *read_artifact(graphs).files}
    foreign = SimpleNamespace(folder=Path("nowhere"))
    monkeypatch.setattr(module, "find_model", lambda folder: foreign)
    with pytest.raises(ConfigError, match=r"^--address: distilora did not save theirs, .*; drop --address$"):
        carried({"theirs": "theirs"})


def test_the_board_tells_those_that_wait_and_those_that_come_later() -> None:
    async def run() -> tuple[dict[str, Any], dict[str, bool]]:
        board = Board()
        waiting = asyncio.create_task(board.join("a", "actor of a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await board.leave()
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(board.join("b", "actor of b"), 1)
        await board.left("a", True)
        return await board.state()

    assert asyncio.run(run()) == ({"a": "actor of a", "b": "actor of b"}, {"a": True})
