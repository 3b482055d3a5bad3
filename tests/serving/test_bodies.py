"""Bodies: whatever is no JSON of a bearable size is refused with one line; nothing is held beyond the limits."""

import asyncio
import json
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.served import exchange

from distilora.serving import bodies as bodies_module
from distilora.serving.batcher import Batcher
from distilora.serving.bodies import lines, parsed
from distilora.serving.limits import Limits
from distilora.serving.refusals import ClientGone, Invalid, Overloaded, TooSlow

JSON = {"content-type": "application/json"}
BAD = [
    (b"", "body", "not JSON"),
    (b"{", "body", "not JSON"),
    (b'{"input": "x"} 3', "body", "not JSON"),
    (b"\xef\xbb\xbf{}", "body", "not JSON"),
    (b'{"input": "\xff"}', "body", "byte 12 is not UTF-8"),
    (b'{"input": "\xed\xa0\x80"}', "body", "is not UTF-8"),  # half a character in bytes
    (b'{"input": "a\\ud83d"}', "input", "character 2 is half a character"),
    (b'{"input": ["a", "\\udc00"]}', "input[1]", "half a character"),
    (b'{"\\ud800": 1}', "body", "half a character"),
    (b'{"input": NaN}', "body", "NaN is no number"),
    (b'{"input": -Infinity}', "body", "-Infinity is no number"),
    (b'{"top_k": 1e999}', "top_k", "not finite"),
    (b'{"top_k": ' + b"9" * 5000 + b"}", "body", "too many digits"),
    (b"[" * 100_000, "body", "nested too deeply"),
    (b'{"a":' * 100_000, "body", "nested too deeply"),
    (b"[" * 33 + b"]" * 33, "body", "nested too deeply"),
    (b'{"input": "a\nb"}', "body", "Invalid control character"),
    (b"'input'", "body", "not JSON"),
]


@pytest.mark.parametrize(("raw", "field", "part"), BAD)
def test_what_is_not_read(raw: bytes, field: str, part: str, client: TestClient) -> None:
    answer = client.post("/v1/classify", content=raw, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"], error["field"]) == (422, "invalid", field)
    assert part in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    "raw",
    [b"null", b'"x"', b"3", b"true", b"[[]]", b"[" * 30 + b"]" * 30, b'{"input": {"a": [1]}}', b'{"input": "\\u0000"}'],
)
def test_what_is_json_of_another_kind(raw: bytes, client: TestClient) -> None:
    answer = client.post("/v1/classify", content=raw, headers=JSON)
    assert answer.status_code == 422 or raw.endswith(b'\\u0000"}')
    assert answer.status_code < 500


def test_the_last_of_two_fields_alike_counts(client: TestClient) -> None:
    answer = client.post("/v1/classify", content=b'{"input": 3, "input": "superb"}', headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {**JSON, "content-encoding": "gzip"},
        {"content-type": "application/json; charset=utf-16"},
    ],
)
def test_other_kinds_of_body(headers: dict[str, str], client: TestClient) -> None:
    for path in ("/v1/classify", "/predict", "/v2/models/reviews/infer"):
        assert client.post(path, content=b'{"input": "superb"}', headers=headers).status_code == 415


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", "Application/JSON", 'application/json; charset="utf-8"']
)
def test_kinds_that_are_json(kind: str, client: TestClient) -> None:
    answer = client.post("/v1/classify", content=json.dumps({"input": "é"}).encode(), headers={"content-type": kind})
    assert answer.status_code == 200


def test_a_body_that_says_it_is_too_large_is_not_waited_for(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "DISCARD_S", 0.05)
    app = serve(Limits(lanes=1, body_bytes=100)).app
    headers = [("content-type", "application/json"), ("content-length", "101")]
    told = asyncio.run(exchange(app, "/v1/classify", [60.0, b"x"], headers=headers))  # nothing of it is waited for
    assert (told.status, told.json["error"]["kind"], told.headers["connection"]) == (413, "too_large", "close")


def test_a_body_that_turns_out_too_large_is_cut_short(serve: Any) -> None:
    app = serve(Limits(lanes=1, body_bytes=100)).app
    endless = [b'{"input": "', *[b"x" * 60] * 3, 60.0]
    assert asyncio.run(exchange(app, "/v1/classify", endless)).status == 413
    exact = b'{"input": "' + b"x" * 87 + b'"}'
    assert len(exact) == 100
    assert asyncio.run(exchange(app, "/v1/classify", [exact[:50], exact[50:]])).status == 200
    headers = [("content-type", "application/json"), ("content-length", "9" * 30)]
    assert asyncio.run(exchange(app, "/v1/classify", [b"{}"], headers=headers)).status == 413


@pytest.mark.parametrize(
    ("parts", "length", "closed"),
    [
        pytest.param([b'{"input": "x"}'], 14, False, id="at hand"),
        pytest.param([b'{"input":', b'"x"}'], 13, False, id="in two parts"),
        pytest.param([b'{"input":', 5.0, b'"x"}'], 13, True, id="not there yet"),
        pytest.param([b'{"input": "x"}'], 65_537, True, id="large"),
        pytest.param([b'{"input": "x"}'], None, True, id="of unknown length"),
        pytest.param([b'{"input": "x"}'], "\xb2", True, id="a length that is no number"),
    ],
)
def test_overload_keeps_a_connection_whose_body_is_read(
    parts: list[Any], length: int | str | None, closed: bool, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise Overloaded("too much waits", retry_after=1)

    monkeypatch.setattr(Batcher, "check_room", full)
    how = ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
    headers = [("content-type", "application/json"), how]
    told = asyncio.run(exchange(serve(Limits(lanes=1)).app, "/v1/classify", parts, headers=headers))
    assert (told.status, told.headers.get("connection")) == (429, "close" if closed else None)


def test_a_body_that_does_not_arrive(serve: Any) -> None:
    app = serve(Limits(lanes=1, timeout_ms=100)).app
    told = asyncio.run(exchange(app, "/v1/classify", [b"{", 5.0, b"}"]))
    assert (told.status, told.json["error"]["kind"]) == (408, "too_slow")
    assert asyncio.run(exchange(app, "/v1/classify", [b"{", None])).status == 499


def test_lines_are_found_across_chunks_and_long_ones_are_not_held() -> None:
    async def collect(chunks: list[bytes | None], limits: Limits) -> list[bytes | None]:
        messages = [
            {"type": "http.disconnect"}
            if chunk is None
            else {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
            for number, chunk in enumerate(chunks)
        ]

        async def receive() -> Any:
            if not messages:
                await asyncio.sleep(60)
            return messages.pop(0)

        return [line async for line in lines(receive, limits)]

    few = Limits(body_bytes=10, timeout_ms=50)
    assert asyncio.run(collect([b'"a"\n"', b'b"\r\n\n', b"  \n", b'"c"'], few)) == [
        b'"a"', b'"b"\r', b"", b"  ", b'"c"'
    ]  # fmt: skip
    assert asyncio.run(collect([b""], few)) == []
    long = b"x" * 6
    assert asyncio.run(collect([long, long, b"\n"], few)) == [None]
    assert asyncio.run(collect([long, long, long + b'\n"a"\n' + 2 * long], few)) == [None, b'"a"', None]
    assert asyncio.run(collect([long, long, b"\n2"], few)) == [None, b"2"]
    assert asyncio.run(collect([2 * long + b"\n", long, b"\n"], few)) == [None, long]
    with pytest.raises(ClientGone):
        asyncio.run(collect([b"1\n", None], few))
    with pytest.raises(TooSlow):
        asyncio.run(collect([], few))


def test_fields_are_named_by_their_places() -> None:
    with pytest.raises(Invalid) as caught:
        parsed(b'{"inputs": [{"context": ["\\ud800"]}]}', 32)
    assert caught.value.field == "inputs[0].context[0]"
    with pytest.raises(Invalid) as caught:
        parsed(b"{", 32, "input[7]")
    assert str(caught.value).startswith("input[7]: not JSON (")
