import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.served import exchange
from support.tiny import tiny_config, tiny_reviews

from distilora.data.parts import read_parts
from distilora.data.sources import open_source
from distilora.errors import ConfigError
from distilora.serving.corrections import append_line, corrections
from distilora.serving.limits import Limits
from distilora.serving.refusals import CorrectionsFull, Failed, Refusal, UnknownModel
from distilora.tasks.classification import Classification
from distilora.tasks.multilabel import MultiLabel
from distilora.tasks.question_answering import QuestionAnswering
from distilora.tasks.registry import restore

fastapi = pytest.importorskip("fastapi")
client_of = pytest.importorskip("fastapi.testclient").TestClient

TASKS = {
    "mood": Classification(("neg", "pos"), "text", "label"),
    "topics": MultiLabel(("art", "food"), "text", "labels"),
    "stars": restore("regression", {"text_column": "text", "label_column": "stars"}),
    "answers": QuestionAnswering(),
}
JSON_TYPE = "application/json"
JSON = {"content-type": JSON_TYPE}
RIGHT = {"model": "mood", "input": "superb", "answer": "neg", "correction": "pos"}


def find(name: str | None):
    if name is None:
        return "mood", TASKS["mood"]
    if name not in TASKS:
        raise UnknownModel(f"model: there is no {name!r}", "model")
    return name, TASKS[name]


def service(path: Path | None, **limits: int):
    app = fastapi.FastAPI()
    app.include_router(corrections(path, find, Limits(**limits)))

    @app.exception_handler(Refusal)
    async def refused(_request, refusal: Refusal):
        error = {"kind": refusal.kind, "message": str(refusal), "field": refusal.field}
        return fastapi.responses.JSONResponse({"error": error}, refusal.status)

    return client_of(app)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corrections.jsonl"


def kept(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_a_correction_becomes_a_line(path: Path) -> None:
    answer = service(path).post("/v1/corrections", json={**RIGHT, "input": "zwei\nZeilen, ‘so’"})
    assert (answer.status_code, answer.json()) == (200, {"kept": True})
    (line,) = kept(path)
    when = line.pop("when")
    assert when.endswith("+00:00")
    assert line == {"text": "zwei\nZeilen, ‘so’", "label": "pos", "model": "mood", "answered": "neg"}


@pytest.mark.parametrize(
    ("body", "label"),
    [
        ({**RIGHT, "model": None}, "pos"),
        ({"input": "a", "correction": "neg"}, "neg"),
        ({"model": "topics", "input": "a", "correction": ["food", "art"]}, ["food", "art"]),
        ({"model": "topics", "input": "a", "correction": []}, []),
        ({"model": "stars", "input": "a", "answer": 2.5, "correction": -3}, -3),
    ],
)
def test_each_task_has_corrections_of_its_kind(path: Path, body: dict, label: object) -> None:
    assert service(path).post("/v1/corrections", json=body).status_code == 200
    name = body.get("model") or "mood"
    own = path if name == "mood" else path.with_name(f"corrections.{name}.jsonl")
    assert [file.name for file in path.parent.iterdir()] == [own.name]  # labels of two models are not mixed
    assert kept(own)[0]["label"] == label


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({**RIGHT, "correction": "great"}, 422, "invalid", "neg, pos"),
        ({**RIGHT, "correction": None}, 422, "invalid", "nothing given"),
        ({**RIGHT, "correction": ["pos"]}, 422, "invalid", "one of the model's labels"),
        ({**RIGHT, "input": "  "}, 422, "invalid", "blank"),
        ({**RIGHT, "input": 7}, 422, "invalid", "a text wanted"),
        ({**RIGHT, "input": "x" * 101}, 422, "too_long", "101 characters"),
        ({**RIGHT, "answer": "x" * 101}, 422, "too_long", "answer"),
        ({**RIGHT, "why": "so"}, 422, "invalid", "why"),
        ({**RIGHT, "model": "none"}, 404, "unknown_model", "none"),
        ({**RIGHT, "model": "topics", "correction": ["art", "art"]}, 422, "invalid", "each once"),
        ({**RIGHT, "model": "stars", "correction": "4"}, 422, "invalid", "a number"),
        ({**RIGHT, "model": "stars", "correction": True}, 422, "invalid", "a number"),
        ({**RIGHT, "model": "answers"}, 422, "wrong_task", "question_answering"),
        ([RIGHT], 422, "invalid", "an object wanted"),
        ({**RIGHT, "input": "x" * 2000}, 413, "too_large", "1,000 bytes"),
    ],
)
def test_what_is_refused_leaves_no_line(path: Path, body: object, status: int, kind: str, message: str) -> None:
    answer = service(path, body_bytes=1000, characters=100).post("/v1/corrections", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (status, kind)
    assert message in error["message"]
    assert not path.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff", b"[" * 900, b'{"input": NaN}', b'{"input": "\\ud800", "correction": "pos"}',
        b'{"\\ud800": 1}', b'{"input": "a", "correction": "\\ud800"}', b'{"model": "stars", "input": "a", "correction": 1e999}',
        b'{"model": "stars", "input": "a", "correction": 1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_of_texts_is_refused(path: Path, body: bytes) -> None:
    answer = service(path).post("/v1/corrections", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "invalid")
    assert not path.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {**JSON, "content-encoding": "gzip"},
        {"content-type": f"{JSON_TYPE}; charset=latin1"},
    ],
)
def test_a_body_of_another_kind_is_refused(path: Path, headers: dict[str, str]) -> None:
    answer = service(path).post("/v1/corrections", content=json.dumps(RIGHT).encode(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (415, "unsupported")
    assert not path.exists()


def test_a_body_that_does_not_arrive_is_refused(path: Path) -> None:
    app = service(path, timeout_ms=100).app
    told = asyncio.run(exchange(app, "/v1/corrections", [b'{"input": ', 5.0, b'"a"}'], headers=list(JSON.items())))
    assert (told.status, told.json["error"]["kind"]) == (408, "too_slow")
    assert not path.exists()


def test_without_a_file_there_is_no_such_service() -> None:
    answer = service(None).post("/v1/corrections", json=RIGHT)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "no_corrections")


def test_lines_of_many_at_once_are_whole(path: Path) -> None:
    lines = [json.dumps({"text": str(i) * 3000}).encode() + b"\n" for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: append_line(path, line), lines))
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize("length", [0, 5, 70_000, 200_000])
def test_a_line_that_was_never_finished_is_cut_off(path: Path, length: int) -> None:
    path.write_bytes(b'{"a": 1}\n' + b"x" * length)
    append_line(path, b'{"b": 2}\n')
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_the_file_has_a_limit(path: Path) -> None:
    append_line(path, b"12345\n", 8)
    with pytest.raises(CorrectionsFull, match="8 bytes"):
        append_line(path, b"12\n", 8)
    assert path.read_bytes() == b"12345\n"


def test_a_line_that_fails_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, os.strerror(28))

    append_line(path, b"1\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failed, match="No space left"):
        append_line(path, b"2\n")
    assert path.read_bytes() == b"1\n"


@pytest.mark.parametrize("name", ["corrections.csv", "missing/corrections.jsonl", "."])
def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--corrections"):
        corrections(tmp_path / name, find, Limits())


def test_training_reads_the_file(path: Path, tmp_path: Path, encoder: Path) -> None:
    """By the names of its columns, which are the usual ones: `distilora train --data.path corrections.jsonl`."""
    client = service(path)
    for i, (text, label) in enumerate(tiny_reviews(120)):
        body = {**RIGHT, "input": f"{i}: {text}", "correction": label}
        assert client.post("/v1/corrections", json=body).status_code == 200
    config = tiny_config(tmp_path / "run", path, encoder)
    task = Classification.from_source(config.data, open_source(str(path)))
    assert (task.text_column, task.label_column, task.labels) == ("text", "label", ("neg", "pos"))
    parts = read_parts(config.data, task)
    assert len(parts.train.targets) + len(parts.validation.targets) > 80  # the rest is held out
