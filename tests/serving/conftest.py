"""Fixtures: tiny finished runs of several tasks, loaded once, and a service of them for each test."""

import csv
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from starlette.testclient import TestClient
from support.tiny import tiny_config

from distilora.serving.app import application
from distilora.serving.engines import Alone
from distilora.serving.limits import Limits
from distilora.serving.pool import Pool
from distilora.serving.service import Service

Serve = Callable[..., TestClient]
ROWS = {  # task -> columns, and the row of a number
    "regression": (("text", "rating"), lambda i: (f"the film was number {i}", "2.5" if i % 2 else "-1")),
    "multilabel": (("text", "tags"), lambda i: (f"the film was number {i}", "music; plot" if i % 2 else "plot")),
    "question_answering": (
        ("question", "context", "answer"),
        lambda i: (f"what is number {i}", f"the plot is number {i} and it was long", f"number {i}"),
    ),
    "summarization": (
        ("document", "summary"),
        lambda i: (f"The film was number {i}. A dull plot. The end was superb {i}.", f"superb {i}"),
    ),
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, encoder: Path, finished: Path) -> dict[str, Path]:
    """Folder of a tiny run of each task; read them, do not change them."""
    from support.fresh import verify_here

    from distilora.export import save as saving
    from distilora.runs.run import train

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of the processes trains for all
        base = base.parent
    base = base / "serving"
    base.mkdir(exist_ok=True)
    found = {"reviews": finished, **{task: base / task for task in ROWS}}
    with pytest.MonkeyPatch.context() as patch, FileLock(base / "lock"):
        patch.setattr(saving, "verify", verify_here)
        for task, (columns, row) in ROWS.items():
            if (base / task / "metrics.json").is_file():
                continue
            with open(base / f"{task}.csv", "w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(columns)
                writer.writerows(row(i) for i in range(24))
            changes: dict[str, Any] = {"adapter__method": "full", "training__epochs": 1, "data__validation_size": 4}
            config = tiny_config(base / task, base / f"{task}.csv", encoder, **changes)
            train(replace(config, task=task))
    return found


@pytest.fixture(scope="session")
def pool(folders: dict[str, Path]) -> Pool:
    """All of them; `reviews` is the first."""
    loaded = Pool("fp32")
    for name, folder in folders.items():
        loaded.add(name, str(folder))
    return loaded


@pytest.fixture
def serve(pool: Pool) -> Iterator[Serve]:
    """Makes clients of a service with settings; `client.service` is the service."""
    services = []

    def make(limits: Limits | None = None, **settings: Any) -> TestClient:
        service = Service(settings.pop("pool", pool), limits or Limits(lanes=1), **settings)
        services.append(service)
        client = TestClient(application(service))
        client.service = service  # type: ignore[attr-defined]
        return client

    yield make
    for service in services:
        service.close()


@pytest.fixture
def stuck(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes models compute until the test is over."""
    over = threading.Event()

    def lane(self: Any) -> Any:
        def compute(rows: Any, adapters: Any) -> Any:
            over.wait(30)
            raise RuntimeError("nobody waits for this")

        return compute

    monkeypatch.setattr(Alone, "lane", lane)
    yield
    over.set()


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()
