"""Streams of lines: in order, in bounded memory, each error in its line's place."""

import asyncio
import json
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.served import exchange, scope_of

from distilora.serving.limits import Limits
from distilora.serving.streams import WINDOW

LINES = [("content-type", "application/x-ndjson")]


def stream(client: TestClient, lines: list[Any], path: str = "/v1/classify") -> list[Any]:
    body = "".join(json.dumps(line) + "\n" for line in lines)
    answer = client.post(path, content=body.encode(), headers=dict(LINES))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_answers_are_those_of_single_requests_in_order(client: TestClient) -> None:
    texts = [f"{'superb' if n % 3 else 'dull'} film {n}" for n in range(3 * WINDOW)]
    told = stream(client, [{"input": text} if n % 2 else text for n, text in enumerate(texts)])
    single = client.post("/v1/classify", json={"input": texts}).json()["answers"]
    assert [answer["label"] for answer in told] == [answer["label"] for answer in single]
    assert [answer["score"] for answer in told] == pytest.approx([answer["score"] for answer in single], abs=1e-5)


def test_settings_are_in_the_query(client: TestClient) -> None:
    (told,) = stream(client, ["superb"], "/v1/classify?model=reviews&top_k=1&raw_scores=true&timeout_ms=20000")
    assert len(told["labels"]) == 1
    wrong = ("top_k=no", "top=1", "explain=true", "model=summarization", "raw_scores=perhaps", "raw_scores=1")
    for query, status in (("model=nobody", 404), *((one, 422) for one in wrong)):
        assert client.post(f"/v1/classify?{query}", content=b'"x"\n', headers=dict(LINES)).status_code == status, query


def test_an_error_stands_in_its_lines_place(serve: Any) -> None:
    client = serve(Limits(lanes=1, characters=20))
    body = (
        b'"superb"\nnot json\n" "\n["superb"]\n{"input": "dull", "x": 1}\n"' + b"y" * 30 + b'"\n"\\ud800"\n\xff\n"dull"'
    )
    answer = client.post("/v1/classify", content=body, headers=dict(LINES))
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("error", {}).get("kind") for line in told] == [
        None, "invalid", "invalid", "invalid", "invalid", "too_long", "invalid", "invalid", None
    ]  # fmt: skip
    for number, line in enumerate(told):
        if "error" in line:
            assert line["error"]["field"] == f"input[{number}]"
    said = [line["error"]["message"] for line in told if "error" in line]
    places = [message.partition(": ")[0] for message in said]
    assert places == ["input[1]", "input[2]", "input[3]", "'x'", "input[5]", "input[6]", "input[7]"]
    assert said[1] == "input[2]: the text is blank; give one with words"


def test_blank_lines_keep_their_places(client: TestClient) -> None:
    answer = client.post("/v1/classify", content=b'"superb"\n\n  \r\n"dull"\n', headers=dict(LINES))
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("error", {}).get("field") for line in told] == [None, "input[1]", "input[2]", None]
    assert told[1]["error"]["message"] == "input[1]: the line is blank; give an input, or leave the line out"


def test_a_line_that_is_too_long_ends_nothing(serve: Any) -> None:
    client = serve(Limits(lanes=1, body_bytes=100, request_tokens=20))
    long = json.dumps("y" * 500).encode()
    chunks = [b'"superb"\n' + long[:300], long[300:], b'\n"dull"\n', json.dumps("superb " * 12).encode() + b"\n", long]
    told = asyncio.run(exchange(client.app, "/v1/classify", chunks, headers=LINES))
    lines = [json.loads(line) for line in told.body.splitlines()]
    errors = [line.get("error", {}) for line in lines]
    assert [error.get("kind") for error in errors] == [None, "too_large", None, None, "too_large"]
    said = "input[1]: more than 100 bytes given (limit body_bytes); shorten the line"
    assert (errors[1]["message"], errors[1]["field"]) == (said, "input[1]")


def test_a_line_of_too_many_tokens_is_named(serve: Any) -> None:
    (told,) = stream(serve(Limits(lanes=1, request_tokens=9)), ["superb " * 12])
    assert told["error"]["message"] == "input[0]: 14 tokens given, at most 9 wanted (limit request_tokens); shorten it"


def test_a_stream_has_no_explanations(client: TestClient) -> None:
    answer = client.post("/v1/classify?explain=true", content=b'"x"\n', headers=dict(LINES))
    assert answer.json()["error"]["message"].startswith("explain: a stream has no explanations; ")


def test_other_routes(client: TestClient) -> None:
    pair = {"question": "what is number 3", "context": "the plot is number 3"}
    told = stream(client, [pair, {**pair, "question": 3}, pair], "/v1/answer?model=question_answering")
    assert told[0] == told[2]
    assert "answer" in told[0]
    assert told[1]["error"]["field"] == "input[1]"
    (told,) = stream(client, ["The film was long. A dull plot."], "/v1/summarise?model=summarization&sentences=1")
    assert len(told["sentences"]) == 1


def test_an_answer_comes_before_the_next_line_is_sent(client: TestClient) -> None:
    sent: list[bytes] = []

    async def run() -> None:
        answered, over = asyncio.Event(), asyncio.Event()
        script = [b'"superb"\n', b'"dull"\n']

        async def receive() -> Any:
            if len(script) == 1:
                await asyncio.wait_for(answered.wait(), 20)
            if script:
                return {"type": "http.request", "body": script.pop(0), "more_body": True}
            await over.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message.get("body"):
                sent.append(message["body"])
                answered.set()
            if len(sent) == 2:
                over.set()

        await asyncio.wait_for(client.app(scope_of("/v1/classify", LINES), receive, send), 30)

    asyncio.run(run())
    assert len(sent) == 2


def test_no_more_lines_are_read_than_answers_are_taken(client: TestClient) -> None:
    read = 0

    async def run() -> None:
        async def receive() -> Any:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b'"superb"\n', "more_body": True}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.app(scope_of("/v1/classify", LINES), receive, send), 1)

    asyncio.run(run())
    assert read <= WINDOW + 3


def test_a_stream_that_breaks_off_is_given_up(client: TestClient) -> None:
    told = asyncio.run(exchange(client.app, "/v1/classify", [b'"superb"\n', 0.3, b'"du', None], headers=LINES))
    assert told.status == 200
    assert [json.loads(part)["label"] for part in told.parts if part.strip()] != []
    assert client.service.flying == 0  # type: ignore[attr-defined]
    assert client.service.batcher.depth == 0  # type: ignore[attr-defined]


def test_a_full_queue_makes_a_stream_wait(serve: Any) -> None:
    client = serve(Limits(lanes=1, waiting_tokens=8, request_tokens=8))
    told = stream(client, ["superb film", "dull film"] * 40)
    assert {answer.get("label") for answer in told} == {"pos", "neg"}


@pytest.mark.usefixtures("stuck")
def test_a_stream_that_is_cut_off_says_so(client: TestClient) -> None:
    service: Any = client.service  # type: ignore[attr-defined]

    async def run() -> Any:
        asking = asyncio.create_task(exchange(client.app, "/v1/classify", [b'"superb"\n', 60.0], headers=LINES))
        await asyncio.sleep(0.1)
        assert await service.stop(0, 0.2) is False
        return await asking

    first, last = (json.loads(line)["error"] for line in asyncio.run(run()).body.splitlines())
    assert (first["kind"], first["field"]) == ("draining", "input[0]")
    assert last["kind"] == "draining"


def test_a_stream_ends_when_the_service_stops(client: TestClient) -> None:
    service: Any = client.service  # type: ignore[attr-defined]

    def stop() -> None:
        service.phase = "draining"

    timer = threading.Timer(0.3, stop)
    timer.start()
    told = asyncio.run(exchange(client.app, "/v1/classify", [b'"superb"\n', 60.0, b'"dull"\n'], headers=LINES))
    first, last = (json.loads(line) for line in told.body.splitlines())
    assert "label" in first
    assert last["error"]["kind"] == "draining"
