"""A service under fuzz and load: nothing makes it fail, and nothing that it accepted is lost."""

import asyncio
import json
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.service_process import KEY, Served

from bench.serving import load
from bench.serving.fuzz import fuzz

TEXTS = ["the film was superb", "a dull plot " * 8, "warm music", "the ending was tedious and the actor clumsy"]


@pytest.mark.slow
def test_a_short_fuzz(finished: Path) -> None:
    service = Served(f"imdb={finished}")
    result = fuzz(f"http://127.0.0.1:{service.port}", 2000, seed=1)
    code, _, _ = service.stop()
    assert result["of_500_or_more"] == 0, result["bad"]
    assert result["hangs"] == 0, result["bad"]
    assert result["ready_afterwards"]
    assert result["requests"] == 2000
    assert {"200", "422", "404"} <= result["statuses"].keys()
    assert code == 0


def under_load(service: Served, seconds: float, **plan: Any) -> tuple[threading.Thread, list[load.Sent]]:
    """Begin a load in a thread; the list has what became of the requests when the thread has ended."""
    bodies = [json.dumps({"input": text, "model": name}) for text in TEXTS for name in service.names]
    whole = {
        "host": "127.0.0.1", "port": service.port, "path": "/v1/classify", "bodies": bodies, "seconds": seconds,
        "headers": {"authorization": f"Bearer {KEY}"}, **plan,
    }  # fmt: skip
    sent: list[load.Sent] = []
    run = load.closed if "connections" in plan else load.opened
    thread = threading.Thread(target=lambda: sent.extend(asyncio.run(run(whole))))
    thread.start()
    return thread, sent


@pytest.mark.slow
def test_a_stop_under_load_loses_nothing(finished: Path) -> None:
    """As many answers arrive as the service says that it gave, and it ends as it should."""
    service = Served(f"imdb={finished}", "--grace", "0.5")
    thread, sent = under_load(service, 3, connections=12)
    time.sleep(1)
    code, _, err = service.stop(signal.SIGTERM)
    thread.join(30)
    statuses = Counter(one.status for one in sent)
    logged = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    given = Counter(row["status"] for row in logged if row["event"] == "request")
    assert code == 0, err[-2000:]
    assert statuses[200] == given[200] > 20
    assert set(statuses) <= {200, 503, -1}  # -1: nobody was there any more


@pytest.mark.slow
def test_a_full_queue_refuses_with_429_and_answers_the_rest(finished: Path) -> None:
    service = Served(f"imdb={finished}", "--limits.waiting_tokens", "120", "--limits.request_tokens", "100")
    thread, sent = under_load(service, 2, connections=60)
    thread.join(60)
    statuses = Counter(one.status for one in sent)
    code, _, _ = service.stop()
    assert set(statuses) == {200, 429}
    assert statuses[200] > 50
    assert code == 0


@pytest.mark.slow
def test_models_are_replaced_under_load_without_losing_a_request(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text(KEY + "\n")
    other = shutil.copytree(finished, tmp_path / "other")
    service = Served(f"one={finished}", f"two={other}", "--admin-key-file", str(tmp_path / "admin"))
    thread, sent = under_load(service, 4, connections=6)
    replaced = 0
    while thread.is_alive():
        for name, folder in (("two", finished), ("one", other), ("two", other)):
            status, answer = service.ask(f"/admin/models/{name}", {"folder": str(folder)}, 60, "PUT")
            assert status == 200, answer
            replaced += 1
    statuses = Counter(one.status for one in sent)
    code, _, _ = service.stop()
    assert set(statuses) == {200}
    assert replaced >= 3
    assert code == 0
