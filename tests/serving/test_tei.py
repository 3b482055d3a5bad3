"""The contract of text-embeddings-inference's /predict, rule by rule."""

import math
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora.inference.predictor import load
from distilora.serving.limits import Limits
from distilora.serving.pool import Pool
from distilora.serving.refusals import DeadlinePassed, Draining, Failed, Overloaded
from distilora.serving.replies import refuse

HEADERS = (
    "x-compute-time", "x-compute-characters", "x-compute-tokens", "x-total-time", "x-tokenization-time", "x-queue-time",
    "x-inference-time",
)  # fmt: skip


def predict(client: TestClient, inputs: Any, **more: Any) -> Any:
    return client.post("/predict", json={"inputs": inputs, **more})


@pytest.mark.parametrize("inputs", ["a superb film", ["a superb film"]])
def test_a_single_text(inputs: Any, client: TestClient, finished: Path) -> None:
    rows = predict(client, inputs).json()
    own = load(finished, "fp32")("a superb film")
    assert [set(row) for row in rows] == [{"score", "label"}] * 2
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {row["label"]: row["score"] for row in rows} == {
        label: pytest.approx(own[f"p_{label}"], abs=1e-5) for label in ("neg", "pos")
    }


def test_a_batch(client: TestClient) -> None:
    rows = predict(client, [["a superb film"], ["dull"], ["a superb film"]]).json()
    assert [len(one) for one in rows] == [2, 2, 2]
    assert rows[0] == rows[2] == predict(client, "a superb film").json()
    assert len(predict(client, [["dull"]]).json()[0]) == 2  # a batch of one answers as a batch


def test_raw_scores_are_logits_whose_softmax_is_the_score(client: TestClient) -> None:
    raw, scores = predict(client, "a superb film", raw_scores=True).json(), predict(client, "a superb film").json()
    total = sum(math.exp(row["score"]) for row in raw)
    assert [math.exp(row["score"]) / total for row in raw] == pytest.approx([row["score"] for row in scores])


@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        ("", 400, "Empty"),
        (" \n", 400, "Empty"),
        ([["fine"], [""]], 400, "Empty"),
        ([["fine"], ["<br/>"]], 400, "Empty"),
        ([], 422, "Validation"),
        (["a", "b"], 422, "Validation"),  # one pair: the model reads single texts
        ([["a"], ["b", "c"]], 422, "Validation"),
        (["a", "b", "c"], 422, "Validation"),
        ([[]], 422, "Validation"),
        ([["a", "b", "c"]], 422, "Validation"),
        ([["a"], "b"], 422, "Validation"),
        (["a", ["b"]], 422, "Validation"),
        ([["a"], [3]], 422, "Validation"),
        (None, 422, "Validation"),
        (3, 422, "Validation"),
        ({"text": "a"}, 422, "Validation"),
        ([["a"]] * 9, 422, "Validation"),
        ("y" * 2001, 422, "Validation"),
    ],
)
def test_refused_inputs(inputs: Any, status: int, kind: str, serve: Any) -> None:
    answer = predict(serve(Limits(lanes=1, inputs=8, characters=2000)), inputs)
    assert (answer.status_code, answer.json()["error_type"], set(answer.json())) == (
        status,
        kind,
        {"error", "error_type"},
    )
    assert "x-compute-time" not in answer.headers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": "a", "extra": 1}', b'{"inputs": "\\ud800"}', b"\xff"])
def test_refused_bodies(body: bytes, client: TestClient) -> None:
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")


def test_truncate(client: TestClient) -> None:
    long = "superb " * 100
    assert predict(client, long).status_code == 200
    assert predict(client, long, truncate=True, truncation_direction="Right").status_code == 200
    assert predict(client, long, truncate=None).status_code == 200
    for more in (
        {"truncate": False},
        {"truncation_direction": "Left"},
        {"truncate": "yes"},
        {"truncation_direction": "Up"},
    ):
        answer = predict(client, long, **more)
        assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation"), more
    assert predict(client, "superb", truncate=False, truncation_direction="Left").status_code == 200


def test_headers_of_times_are_whole_milliseconds(client: TestClient) -> None:
    headers = predict(client, "a superb film").headers
    assert all(headers[name].isdecimal() for name in HEADERS)
    assert headers["x-compute-characters"] == "13"
    assert headers["x-compute-tokens"] == "5"
    assert headers["x-compute-type"] == "cpu"


def test_other_statuses_of_the_contract() -> None:
    for refusal, status, kind in (
        (Failed("x"), 424, "Backend"), (Overloaded("x", retry_after=3), 429, "Overloaded"), (Draining("x"), 503, "Unhealthy"),
        (DeadlinePassed("x"), 504, "Overloaded"),
    ):  # fmt: skip
        answer = refuse(refusal, "/predict", "1")
        assert answer.status_code == status
        assert f'"error_type":"{kind}"'.encode() in answer.body
    assert refuse(Overloaded("x", retry_after=3), "/predict", "1").headers["retry-after"] == "3"


def test_info(client: TestClient) -> None:
    told = client.get("/info").json()
    assert told["model_id"] == "reviews"
    assert told["model_dtype"] == "float32"
    assert told["model_type"]["classifier"] == {"id2label": {"0": "neg", "1": "pos"}, "label2id": {"neg": 0, "pos": 1}}
    assert (told["max_concurrent_requests"], told["max_client_batch_size"], told["max_input_length"]) == (512, 512, 64)


def test_tokenize(client: TestClient) -> None:
    (tokens,) = client.post("/tokenize", json={"inputs": "superb film"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "superb", "film", "[SEP]"]
    assert tokens[1] == {"id": tokens[1]["id"], "text": "superb", "special": False, "start": 0, "stop": 6}
    (tokens,) = client.post("/tokenize", json={"inputs": ["superb"], "add_special_tokens": False}).json()
    assert [token["text"] for token in tokens] == ["superb"]


@pytest.mark.parametrize(("first", "labels"), [("multilabel", {"music", "plot"}), ("regression", {"value"})])
def test_other_tasks(first: str, labels: set[str], folders: dict[str, Path], serve: Any) -> None:
    pool = Pool("fp32")
    pool.add(first, str(folders[first]))
    client = serve(pool=pool)
    own, rows = load(folders[first], "fp32")("superb"), predict(client, "superb").json()
    assert {row["label"] for row in rows} == labels
    raw = {row["label"]: row["score"] for row in predict(client, "superb", raw_scores=True).json()}
    for row in rows:  # sigmoids: of several labels never a softmax, whose sum would be 1
        assert row["score"] == pytest.approx(1 / (1 + math.exp(-raw[row["label"]])), abs=1e-6)
    if first == "multilabel":
        assert {row["label"]: row["score"] for row in rows} == {
            n: pytest.approx(own[f"p_{n}"], abs=1e-5) for n in labels
        }
    else:
        assert raw["value"] == pytest.approx(own["value"], abs=1e-4)


def test_a_task_without_labels(folders: dict[str, Path], serve: Any) -> None:
    pool = Pool("fp32")
    pool.add("summarization", str(folders["summarization"]))
    answer = predict(serve(pool=pool), "superb")
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
    assert answer.json()["error"].endswith("ask /v1/summarise")
