"""The door: ids, headers, keys, phases; what goes wrong behind it; and the OpenAPI document, whose examples are carried out."""

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.served import exchange

from distilora.serving import service as service_module
from distilora.serving.keys import Keys
from distilora.serving.limits import Limits
from distilora.serving.logs import JsonLines, log
from distilora.serving.refusals import Overloaded

SECRET = "correct-horse-battery-staple"
OPEN = ("/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready")
CLOSED = ("/v1/models", "/v1/models/reviews", "/info", "/metrics", "/openapi.json", "/v2", "/nowhere")


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Any:
    logging.getLogger("distilora.serving").propagate = True
    caplog.set_level(logging.INFO, "distilora.serving")
    return lambda: [
        json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "distilora.serving"
    ]


@pytest.mark.parametrize("path", ["/v1/models", "/predict", "/nowhere", "/v2/models/nobody", "/livez"])
def test_headers_on_everything(path: str, client: TestClient) -> None:
    headers = client.get(path, headers={"x-request-id": "a-1.b:c_2"}).headers
    assert headers["x-request-id"] == "a-1.b:c_2"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 129, "a/b"])
def test_a_request_id_that_is_none_is_replaced(given: str, client: TestClient) -> None:
    told = client.get("/livez", headers={"x-request-id": given.encode()}).headers["x-request-id"]
    assert len(told) == 32
    assert told != given


def test_no_key_where_none_is_wanted_and_one_where_it_is(serve: Any) -> None:
    client = serve(keys=Keys([SECRET, "another-key-of-somebody"]))
    for path in OPEN:
        assert client.get(path).status_code == 200, path
    for path in CLOSED:
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
    for given in ("", "Bearer", f"Basic {SECRET}", f"Bearer {SECRET}x", f"Bearer x{SECRET}", SECRET, "Bearer ä"):
        headers = {"authorization": given.encode()}
        assert client.post("/v1/classify", json={"input": "x"}, headers=headers).status_code == 401, given
        assert SECRET not in client.get("/v1/models", headers=headers).text
    for given in (f"Bearer {SECRET}", f"bearer {SECRET}", "Bearer another-key-of-somebody"):
        headers = {"authorization": given}
        assert client.post("/v1/classify", json={"input": "x"}, headers=headers).status_code == 200
    assert client.post("/livez").status_code == 401  # only what reads is open
    assert client.get("/livez/").status_code == 401
    tei = client.post("/predict", json={"inputs": "x"})
    assert (tei.status_code, tei.json()["error_type"]) == (401, "Validation")


def test_a_body_is_not_read_without_a_key(serve: Any) -> None:
    app = serve(keys=Keys([SECRET])).app
    assert asyncio.run(exchange(app, "/v1/classify", [60.0, b"{}"])).status == 401


def test_clients_are_their_keys_or_addresses(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for keys, headers in ((Keys(), []), (Keys([SECRET]), [("authorization", f"Bearer {SECRET}")])):
        client = serve(keys=keys)
        submit = client.service.batcher.submit
        monkeypatch.setattr(
            client.service.batcher,
            "submit",
            lambda works, who, deadline, to=submit: seen.append(who) or to(works, who, deadline),
        )
        told = asyncio.run(
            exchange(
                client.app,
                "/v1/classify",
                [b'{"input": "x"}'],
                headers=[("content-type", "application/json"), *headers],
            )
        )
        assert told.status == 200
    assert seen[0] == "192.0.2.1"
    assert seen[1].startswith("key-")
    assert SECRET not in seen[1]


def test_what_is_not_there(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"]["kind"] == "no_such_route"
    wrong = client.get("/v1/classify")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["error"]["kind"]) == (405, "POST", "wrong_method")
    assert client.put("/admin/models/x", json={"folder": "x"}).status_code == 404
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert client.get("/page/../app.py").status_code == client.get("/page/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize("path", ["/v1/classify", "/predict", "/v2/models/reviews/infer"])
def test_what_nobody_foresaw_is_told_to_the_log_alone(
    path: str, client: TestClient, monkeypatch: pytest.MonkeyPatch, log_lines: Any
) -> None:
    words = "secret words of /a/path/of/ours"

    def broken(*_: Any) -> None:
        raise ValueError(words)

    monkeypatch.setattr(client.service.batcher, "submit", broken)  # type: ignore[attr-defined]
    tensor = {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    body = {"/v1/classify": {"input": "x"}, "/predict": {"inputs": "x"}}.get(path, {"inputs": [tensor]})
    answer = client.post(path, json=body)
    assert answer.status_code == (424 if path == "/predict" else 500)
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    failed = next(line for line in log_lines() if line["event"] == "failed")
    assert failed["level"] == "error"
    assert "ValueError" in failed["trace"]
    assert "in broken" in failed["trace"]
    assert failed["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in json.dumps(failed)


def test_a_model_that_fails(client: TestClient, monkeypatch: pytest.MonkeyPatch, log_lines: Any) -> None:
    from distilora.serving.engines import Alone

    def lane(self: Any) -> Any:
        def compute(*_: Any) -> Any:
            raise RuntimeError("out of memory")

        return compute

    monkeypatch.setattr(Alone, "lane", lane)
    answer = client.post("/v1/classify", json={"input": "x"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (500, "failed")
    assert "memory" not in answer.text
    assert "RuntimeError: out of memory" in next(line for line in log_lines() if line["event"] == "failed")["trace"]
    assert client.post("/predict", json={"inputs": "x"}).json()["error_type"] == "Backend"


def test_a_full_queue_says_when_to_ask_again(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise Overloaded("too much waits", retry_after=7)

    monkeypatch.setattr(client.service.batcher, "submit", full)  # type: ignore[attr-defined]
    for path, body in (("/v1/classify", {"input": "x"}), ("/predict", {"inputs": "x"})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_more_requests_at_once_than_are_let_in(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MOST_FLYING", 0)
    answer = client.post("/v1/classify", json={"input": "x"})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["kind"]) == (
        429,
        "1",
        "overloaded",
    )
    assert client.get("/livez").status_code == client.get("/metrics").status_code == 200


def test_a_deadline_that_passes_and_a_client_that_goes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    service: Any = client.service  # type: ignore[attr-defined]
    submit, tickets = service.batcher.submit, []

    def never(works: Any, who: str, deadline: float) -> Any:
        ticket = submit([], who, deadline)
        ticket.done = type(ticket.done)()
        tickets.append(ticket)
        return ticket

    monkeypatch.setattr(service.batcher, "submit", never)
    answer = client.post("/v1/classify", json={"input": "x", "timeout_ms": 50})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (504, "deadline_passed")
    told = asyncio.run(exchange(client.app, "/v1/classify", [b'{"input": "x"}', ...]))
    assert told.status == 499
    assert [ticket.done.cancelled() for ticket in tickets] == [True, True]
    assert service.flying == 0


def test_a_log_line_for_each_request_and_no_text_in_any(client: TestClient, log_lines: Any) -> None:
    client.post("/v1/classify?x=hidden", json={"input": "mellifluous"}, headers={"x-request-id": "seven"})
    client.post("/v1/classify", json={"input": ["mellifluous", " "]})
    client.post(
        "/v1/classify",
        content=b'"mellifluous"\n"\\ud800 mellifluous"\n',
        headers={"content-type": "application/x-ndjson"},
    )
    client.get("/v1/models/mellifluous")
    client.get("/mellifluous")
    client.get("/livez")
    told = log_lines()
    assert [(line["route"], line["status"]) for line in told if line["event"] == "request"] == [
        ("/v1/classify", 200), ("/v1/classify", 422), ("/v1/classify", 200), ("/v1/models/{name}", 404), ("other", 404),
    ]  # fmt: skip
    first = told[0]
    assert (first["request_id"], first["model"], first["inputs"], first["level"]) == ("seven", "reviews", 1, "info")
    assert {"total", "tokenise", "queue", "compute", "decode"} == set(first["ms"])
    assert "mellifluous" not in json.dumps(told)
    assert "hidden" not in json.dumps(told)


def test_cross_origin_is_closed_unless_it_is_opened(serve: Any) -> None:
    asked = {
        "origin": "https://a.example", "access-control-request-method": "POST", "access-control-request-headers": "authorization"
    }  # fmt: skip
    for headers in (
        serve().options("/v1/classify", headers=asked).headers,
        serve().get("/livez", headers=asked).headers,
    ):
        assert not [name for name in headers if name.startswith("access-control")]
    client = serve(origins=["https://a.example"], keys=Keys([SECRET]))
    answer = client.options("/v1/classify", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
    refused = client.get("/v1/models", headers={"origin": "https://a.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
    other = client.options("/v1/classify", headers={**asked, "origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_stopping_by_phases(serve: Any) -> None:
    client = serve()
    service = client.service

    async def run() -> list[Any]:
        stopping = asyncio.create_task(service.stop(0.3, 5))
        await asyncio.sleep(0.1)
        leaving = [
            await exchange(client.app, "/readyz", method="GET"), await exchange(client.app, "/v1/classify", [b'{"input": "x"}']),
            await exchange(client.app, "/health", method="GET"),
        ]  # fmt: skip
        await asyncio.sleep(0.3)
        draining = [
            await exchange(client.app, "/v1/classify", [b'{"input": "x"}']), await exchange(client.app, "/predict", [b"{}"]),
            await exchange(client.app, "/livez", method="GET"), await exchange(client.app, "/metrics", method="GET"),
        ]  # fmt: skip
        assert await stopping is True
        return [*leaving, *draining]

    answers = asyncio.run(run())
    assert [answer.status for answer in answers] == [503, 200, 503, 503, 503, 200, 200]
    assert answers[0].json == {"status": "leaving"}
    assert answers[2].json["error_type"] == answers[4].json["error_type"] == "Unhealthy"
    assert answers[3].json["error"]["kind"] == "draining"
    assert answers[3].headers["retry-after"] == "5"


def test_what_was_accepted_is_finished_and_what_takes_too_long_is_said(serve: Any) -> None:
    client = serve(Limits(lanes=1, timeout_ms=5_000))

    async def run(pause: float, seconds: float) -> tuple[bool, int]:
        asking = asyncio.create_task(exchange(client.app, "/v1/classify", [b'{"input": ', pause, b'"x"}']))
        await asyncio.sleep(0.05)
        drained = await client.service.stop(0, seconds)
        return drained, (await asking).status

    drained, status = asyncio.run(run(0.4, 5))
    assert (drained, status) == (True, 200)  # though half of its body came after the signal
    client = serve(Limits(lanes=1))
    drained, _ = asyncio.run(run(0.6, 0.2))
    assert drained is False


@pytest.mark.usefixtures("stuck")
def test_what_is_cut_off_is_told_in_json(client: TestClient) -> None:
    """One request waits to be computed, one is being explained, of one the body does not end."""
    service: Any = client.service  # type: ignore[attr-defined]
    chunks = ([b'{"input": "x"}'], [b'{"input": "a b", "explain": true}'], [b'{"input": ', 60.0])

    async def run() -> tuple[float, list[Any]]:
        asking = [asyncio.create_task(exchange(client.app, "/v1/classify", of)) for of in chunks]
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        assert await service.stop(0, 0.5) is False
        return time.monotonic() - begun, await asyncio.gather(*asking)

    seconds, told = asyncio.run(run())
    assert 0.5 <= seconds < 3
    for one in told:
        assert (one.status, one.json["error"]["kind"], one.headers["retry-after"]) == (503, "draining", "5")
        assert one.json["request_id"] == one.headers["x-request-id"]
    assert service.flying == 0


def test_traces_name_kinds_and_quote_nothing(log_lines: Any) -> None:
    try:
        try:
            {}["a text"]
        except KeyError as error:
            raise OSError("the disk is full") from error
    except OSError as error:
        log(logging.ERROR, "failed", error)
    (line,) = log_lines()
    assert "KeyError" in line["trace"]
    assert "OSError: the disk is full" in line["trace"]
    assert "a text" not in line["trace"].replace('{}["a text"]', "")


def examples(client: TestClient) -> list[tuple[str, str, str, str, Any]]:
    document = client.get("/openapi.json").json()
    return [
        (method, path, kind, name, example["value"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        for name, example in content["examples"].items()
    ]


def test_every_example_of_the_document_is_answered_as_it_says(client: TestClient) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = client.get("/openapi.json").json()
    models = {"/v1/answer": "question_answering", "/v1/summarise": "summarization"}
    seen = set()
    for method, path, kind, name, value in examples(client):
        query = ""
        if path in models and kind == "application/json":
            value = {**value, "model": models[path]}
        elif path in models:
            query = f"?model={models[path]}"
        content = value if isinstance(value, str) else json.dumps(value)
        url = path.replace("{name}", "reviews") + query
        answer = client.request(method, url, content=content.encode(), headers={"content-type": kind})
        assert answer.status_code == 200, (path, name, answer.text)
        seen.add(path)
        if kind != "application/json":
            assert all("error" not in json.loads(line) for line in answer.text.splitlines())
            continue
        operation = document["paths"][path][method]
        for schema, instance in (
            (operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json()),
            (operation["requestBody"]["content"]["application/json"]["schema"], value),
        ):
            jsonschema.validate(instance, {**schema, "components": document["components"]})
    assert {"/v1/classify", "/v1/answer", "/v1/summarise", "/predict", "/tokenize", "/v2/models/{name}/infer"} <= seen


def test_the_document_has_every_route_and_status(serve: Any) -> None:
    client = serve(admin_keys=Keys([SECRET]))
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert "200" in operation["responses"], path
            if method in ("post", "put"):
                assert operation["requestBody"]["content"]["application/json"]["examples"], path
                assert {"401", "413", "415"} <= set(operation["responses"]), path
    assert set(document["paths"]["/v1/classify"]["post"]["responses"]) == {
        "200", "401", "404", "408", "413", "415", "422", "429", "500", "503", "504"
    }  # fmt: skip
    assert "HTTPValidationError" not in json.dumps(document)
    assert "$defs" not in json.dumps(document)
    for path in ("/v1/models", "/v1/models/reviews", "/info", "/v2", "/v2/models/reviews", "/livez", "/readyz"):
        template = path.replace("reviews", "{name}")
        schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        pytest.importorskip("jsonschema").validate(
            client.get(path).json(), {**schema, "components": document["components"]}
        )
    assert "security" not in document
    keyed = serve(keys=Keys([SECRET])).get("/openapi.json", headers={"authorization": f"Bearer {SECRET}"}).json()
    assert keyed["security"] == [{"key": []}]
