"""Probes, measures, and the page's files."""

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora.serving import operations
from distilora.serving import service as service_module


def test_probes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    service: Any = client.service  # type: ignore[attr-defined]
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert (client.get("/health").status_code, client.get("/health").content) == (200, b"")
    monkeypatch.setattr(service.pool, "alive", lambda: False)
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "failing"})
    assert client.get("/health").json()["error_type"] == "Unhealthy"
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/livez").status_code == 200


def test_a_service_that_hangs_is_not_ready(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    service: Any = client.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service_module, "PROBE_S", 0.1)
    monkeypatch.setattr(service.pool, "alive", lambda: time.sleep(0.5) or True)
    assert client.get("/readyz").status_code == 503


def test_measures(client: TestClient) -> None:
    client.post("/v1/classify", json={"input": ["superb", "superb " * 100]})
    client.post("/v1/classify", json={"input": 3})
    client.get("/not/a/route/17")
    text = client.get("/metrics").text
    for line in (
        'distilora_requests_total{method="POST",route="/v1/classify",status="200"} 1.0',
        'distilora_requests_total{method="POST",route="/v1/classify",status="422"} 1.0',
        'distilora_requests_total{method="GET",route="other",status="404"} 1.0',
        'distilora_refusals_total{kind="invalid"} 1.0',
        'distilora_inputs_total{model="reviews"} 2.0',
        'distilora_truncated_total{model="reviews"} 1.0',
        'distilora_stage_seconds_count{stage="compute"} 1.0',
        "distilora_queue_inputs 0.0",
        "distilora_models 5.0",
    ):
        assert line + "\n" in text
    assert "17" not in text.split("distilora_requests_total{")[1].split("\n")[0]
    assert "distilora_batch_inputs_sum 2.0" in text


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in (
        ("index.html", "<!doctype html>"),
        ("page.css", "p {}"),
        ("page.js", "1"),
        ("notes.txt", "no"),
    ):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(operations, "PAGE", tmp_path)
    return tmp_path


def test_the_page_and_its_files(page: Path, serve: Any) -> None:
    from distilora.serving.keys import Keys

    client = serve(keys=Keys(["a-key-that-a-page-has-not"]))
    for path, kind in (("/", "text/html"), ("/page/page.css", "text/css"), ("/page/page.js", "text/javascript")):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)
        assert answer.headers["content-security-policy"] == operations.POLICY
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head(path).status_code == 200
    assert client.get("/page/notes.txt").status_code == 401
    assert "unsafe" not in operations.POLICY
