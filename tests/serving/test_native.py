"""The native API: answers as `distilora predict` gives them, and each refusal with its status, kind and field."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora.explanation.explain import explain
from distilora.inference.predictor import Predictor, load
from distilora.serving.limits import Limits
from distilora.serving.pool import Pool

PAIR = {"question": "what is number 3", "context": "the plot is number 3"}
TEXTS = ["a superb film, really 7.", "the plot was dull and <br/> awful", "é ü 漢字 \U0001f600 superb"]


@pytest.mark.parametrize("given", [TEXTS[0], TEXTS[:1], TEXTS])
def test_classify_answers_as_predict_does(given: Any, client: TestClient, finished: Path) -> None:
    told = client.post("/v1/classify", json={"input": given}).json()
    assert (told["model"], told["task"]) == ("reviews", "classification")
    assert told["usage"]["tokens"] > 0
    expected = load(finished, "fp32")([given] if isinstance(given, str) else given)
    for answer, own in zip(told["answers"], expected, strict=True):
        assert set(answer) == {"label", "score", "abstain", "truncated", "labels"}
        assert answer["label"] == own["label"] == answer["labels"][0]["label"]
        assert answer["score"] == pytest.approx(own["score"], abs=1e-5)
        scores = [row["score"] for row in answer["labels"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
        for row in answer["labels"]:
            assert row["score"] == pytest.approx(own[f"p_{row['label']}"], abs=1e-5)


def test_top_k_and_raw_scores(client: TestClient) -> None:
    body = {"model": "reviews", "input": TEXTS, "top_k": 1, "raw_scores": True, "timeout_ms": 20_000}
    for answer in client.post("/v1/classify", json=body).json()["answers"]:
        assert [row["label"] for row in answer["labels"]] == [answer["label"]]
        assert answer["labels"][0]["score"] == answer["score"]
    both = client.post("/v1/classify", json={**body, "top_k": None}).json()["answers"][0]["labels"]
    shares = client.post("/v1/classify", json={"input": TEXTS}).json()["answers"][0]["labels"]
    total = sum(math.exp(row["score"]) for row in both)
    assert [math.exp(row["score"]) / total for row in both] == pytest.approx([row["score"] for row in shares])


def test_explain_as_the_command_does(client: TestClient, finished: Path) -> None:
    text = "a superb film but the plot was dull."
    (answer,) = client.post("/v1/classify", json={"input": text, "explain": True}).json()["answers"]
    told, own = answer["explanation"], explain(load(finished, "fp32"), text)
    assert (told["method"], told["level"], told["label"]) == ("leave-one-out", "word", own.label)
    assert told["text"] == own.text
    for part, weight in zip(told["parts"], own.parts, strict=True):
        assert (part["text"], part["start"], part["end"]) == weight[:3]
        assert part["weight"] == pytest.approx(weight.weight, abs=1e-5)
        assert own.text[part["start"] : part["end"]] == part["text"]


def test_explain_by_sentences(client: TestClient) -> None:
    body = {"input": "A dull start. A superb end.", "explain": "sentence"}
    (answer,) = client.post("/v1/classify", json=body).json()["answers"]
    assert [part["text"] for part in answer["explanation"]["parts"]] == ["A dull start.", "A superb end."]
    refused = client.post("/v1/classify", json={"input": ["fine film", "superb"], "explain": True})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "input[1]")
    assert client.post("/v1/classify", json={"input": "x", "explain": "letter"}).json()["error"]["field"] == "explain"


def test_an_explanation_that_costs_too_much_is_refused_before_it_is_computed(serve: Any) -> None:
    client = serve(Limits(lanes=1, request_tokens=60, waiting_tokens=600))
    refused = client.post("/v1/classify", json={"input": "superb " * 20, "explain": "word"})
    assert (refused.status_code, refused.json()["error"]["kind"]) == (422, "too_long")
    assert "explanation takes" in refused.json()["error"]["message"]


def test_several_labels_and_numbers(client: TestClient, folders: dict[str, Path]) -> None:
    (answer,) = client.post("/v1/classify", json={"model": "multilabel", "input": TEXTS[0]}).json()["answers"]
    own = load(folders["multilabel"], "fp32")(TEXTS[0])
    assert {row["label"]: row["score"] for row in answer["labels"]} == {
        name: pytest.approx(own[f"p_{name}"], abs=1e-5) for name in ("music", "plot")
    }
    assert "; ".join(row["label"] for row in answer["labels"] if row["answered"]) in (own["labels"], "plot; music")
    (answer,) = client.post("/v1/classify", json={"model": "regression", "input": TEXTS[0]}).json()["answers"]
    assert answer["value"] == pytest.approx(load(folders["regression"], "fp32")(TEXTS[0])["value"], abs=1e-4)
    assert "labels" not in answer


def test_answer_questions(client: TestClient, folders: dict[str, Path]) -> None:
    question, context = "what is number 3", "<p>the plot is number 3 and it was superb</p>"
    own = load(folders["question_answering"], "fp32")({"question": question, "context": context})
    body = {"model": "question_answering", "question": [question, question], "context": context}
    for answer in client.post("/v1/answer", json=body).json()["answers"]:
        assert set(answer) == {"answer", "start", "end", "score", "no_answer", "truncated"}
        assert (answer["answer"], answer["start"], answer["end"]) == (own["answer"], own["start"], own["end"])
        assert answer["score"] == pytest.approx(own["score"], abs=1e-5)
    body = {"model": "question_answering", "inputs": [{"question": question, "context": context}]}
    assert client.post("/v1/answer", json=body).json()["answers"][0]["answer"] == own["answer"]


def test_summarise(client: TestClient, folders: dict[str, Path]) -> None:
    text = "The film was long. A dull plot. The end was superb."
    own = load(folders["summarization"], "fp32")(text)
    (answer,) = client.post("/v1/summarise", json={"model": "summarization", "input": text}).json()["answers"]
    assert answer["summary"] == own["summary"]
    body = {"model": "summarization", "input": text, "sentences": 2}
    (answer,) = client.post("/v1/summarise", json=body).json()["answers"]
    assert len(answer["sentences"]) == 2
    for sentence in answer["sentences"]:
        assert text[sentence["start"] : sentence["end"]] == sentence["text"]
    assert client.post("/v1/summarise", json={**body, "words": 3}).status_code == 422


def test_a_summary_of_another_length_from_a_model_on_a_shared_encoder(serve: Any, pool: Pool) -> None:
    """Its predictor is not made by `load`: there is nothing to load it from again."""
    model = pool.get("summarization")
    own = model.predictor
    shared = Pool("fp32")
    predictor = Predictor(own.artifact, own.backend, tokenizer=own.tokenizer)
    shared._models = {"sum": replace(model, name="sum", predictor=predictor)}
    client = serve(pool=shared)
    text = "The film was long. A dull plot. The end was superb."
    for setting, value, sentences in (("sentences", 2, 2), ("words", 4, 1)):
        answer = client.post("/v1/summarise", json={"input": text, setting: value})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["answers"][0]["sentences"]) == sentences
        lines = {"content-type": "application/x-ndjson"}
        answer = client.post(f"/v1/summarise?{setting}={value}", content=json.dumps(text), headers=lines)
        assert len(json.loads(answer.text)["sentences"]) == sentences


def test_a_question_that_is_cut_is_told(client: TestClient) -> None:
    body = {"model": "question_answering", "question": ["what " * 600, "what"], "context": "the plot is number 3"}
    answers = client.post("/v1/answer", json=body).json()["answers"]
    assert [answer["truncated"] for answer in answers] == [True, False]


def test_an_explanation_may_take_more_copies_than_a_request_has_inputs(serve: Any) -> None:
    client = serve(Limits(lanes=1, inputs=3))
    answer = client.post("/v1/classify", json={"input": "a superb film but the plot was dull", "explain": True})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["answers"][0]["explanation"]["parts"]) == 8


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"input": "superb " * 9, "explain": True},
            "takes 99 tokens by word, and 60 are left (limit request_tokens); explain fewer or shorter texts",
        ),
        ({"input": "a dull film. " * 3, "explain": "word"}, "explain fewer or shorter texts, or by sentence"),
        ({"input": "a dull film", "explain": "sentence"}, "fewer than two; explain it by word"),
    ],
)
def test_a_refused_explanation_says_what_would_be_explained(body: Any, said: str, serve: Any) -> None:
    answer = serve(Limits(lanes=1, request_tokens=60)).post("/v1/classify", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].endswith(said)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/classify", {"input": ["x"] * 9}, "input: 9 given, at most 8 wanted (limit inputs); send several requests"),
        ("/v1/classify", {"input": "y" * 2001}, "at most 2,000 wanted (limit characters); shorten it"),
        ("/v1/classify", {"input": "x " * 300}, "at most 60 wanted (limit request_tokens); shorten it"),
        ("/v1/classify", {"input": ["x " * 50] * 2}, "at most 60 wanted (limit request_tokens); send several requests"),
        ("/v1/classify", {"input": [[["x"]]]}, "at most 3 levels wanted (limit json_depth); flatten it"),
        ("/v1/classify", {"input": "y" * 5000}, "more than 4,000 bytes given (limit body_bytes); send several requests"),
        ("/v1/classify", {"input": "x", "top_k": True}, "top_k: true given, a whole number of at least 1 wanted"),
        ("/v1/classify", {"input": "x", "model": ""}, "model: '' given, there is reviews, regression, multilabel, "
         "question_answering, summarization; name one of them"),
        ("/v1/answer", {"model": "question_answering", "inputs": PAIR},
         "inputs: an object given, a list of objects with question and context wanted"),
        ("/v1/answer", {"model": "question_answering", "inputs": []},
         "inputs: an empty list given; give at least one question with its context"),
        ("/v1/answer", {"model": "question_answering", **PAIR, "question": " "},
         "question: the text is blank; give one with words"),
        ("/v1/answer", {"model": "question_answering", **PAIR, "context": "<br />"},
         "context: the text is blank; give one with words"),
        ("/v1/answer", {"model": "question_answering", **PAIR, "question": ["what", " "]},
         "question[1]: the text is blank; give one with words"),
        ("/v1/answer", {"model": "question_answering", "inputs": [PAIR, {**PAIR, "context": " "}]},
         "inputs[1].context: the text is blank; give one with words"),
    ],
)  # fmt: skip
def test_what_is_said_of_it(path: str, body: Any, said: str, serve: Any) -> None:
    limits = Limits(lanes=1, inputs=8, characters=2000, request_tokens=60, json_depth=3, body_bytes=4000)
    error = serve(limits).post(path, json=body).json()["error"]
    assert error["message"].endswith(said)
    assert error["message"].startswith(error["field"])


REFUSED = [
    ("/v1/classify", {}, 422, "invalid", "input"),
    ("/v1/classify", [], 422, "invalid", "body"),
    ("/v1/classify", {"input": []}, 422, "invalid", "input"),
    ("/v1/classify", {"input": 3}, 422, "invalid", "input"),
    ("/v1/classify", {"input": ["a", None]}, 422, "invalid", "input[1]"),
    ("/v1/classify", {"input": ["fine", "  "]}, 422, "invalid", "input[1]"),
    ("/v1/classify", {"input": ["fine", "<br />"]}, 422, "invalid", "input[1]"),
    ("/v1/classify", {"input": ["fine", "\x00\x01"]}, 422, "invalid", "input[1]"),
    ("/v1/classify", {"input": "x", "explain": 0}, 422, "invalid", "explain"),
    ("/v1/classify", {"input": "x", "explain": 1}, 422, "invalid", "explain"),
    ("/v1/classify", {"input": "x", "explain": []}, 422, "invalid", "explain"),
    ("/v1/classify", {"input": "x", "top": 1}, 422, "invalid", "top"),
    ("/v1/classify", {"input": "x", "top_k": 0}, 422, "invalid", "top_k"),
    ("/v1/classify", {"input": "x", "top_k": True}, 422, "invalid", "top_k"),
    ("/v1/classify", {"input": "x", "top_k": 1.5}, 422, "invalid", "top_k"),
    ("/v1/classify", {"model": "regression", "input": "x", "top_k": 1}, 422, "invalid", "top_k"),
    ("/v1/classify", {"model": "regression", "input": "x", "raw_scores": True}, 422, "invalid", "raw_scores"),
    ("/v1/classify?top_k=1", {"input": "x"}, 422, "invalid", "top_k"),
    ("/v1/classify", {"input": "x", "raw_scores": "yes"}, 422, "invalid", "raw_scores"),
    ("/v1/classify", {"input": "x", "timeout_ms": -1}, 422, "invalid", "timeout_ms"),
    ("/v1/classify", {"input": "x", "model": 7}, 422, "invalid", "model"),
    ("/v1/classify", {"input": "x", "model": "m" * 300}, 422, "invalid", "model"),
    ("/v1/classify", {"input": "x", "model": "nobody"}, 404, "unknown_model", "model"),
    ("/v1/classify", {"input": "x", "model": ""}, 404, "unknown_model", "model"),
    ("/v1/classify", {"input": "x", "model": "summarization"}, 422, "wrong_task", "model"),
    ("/v1/classify", {"input": ["x"] * 9}, 422, "too_many", "input"),
    ("/v1/classify", {"input": ["x", "y" * 2001]}, 422, "too_long", "input[1]"),
    ("/v1/answer", {"question": "x", "context": "y"}, 422, "wrong_task", "model"),
    ("/v1/answer", {"model": "question_answering", "question": "x"}, 422, "invalid", "context"),
    ("/v1/answer", {"model": "question_answering", "question": "x", "inputs": []}, 422, "invalid", "question"),
    ("/v1/answer", {"model": "question_answering", "inputs": [{"question": "x"}]}, 422, "invalid", "inputs[0].context"),
    ("/v1/summarise", {"input": "x"}, 422, "wrong_task", "model"),
    ("/v1/summarise", {"model": "summarization", "input": "x", "sentences": 0}, 422, "invalid", "sentences"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "kind", "field"), REFUSED)
def test_refused(path: str, body: Any, status: int, kind: str, field: str, serve: Any) -> None:
    answer = serve(Limits(lanes=1, inputs=8, characters=2000)).post(path, json=body)
    told = answer.json()
    assert (answer.status_code, told["error"]["kind"], told["error"].get("field")) == (status, kind, field)
    assert told["request_id"] == answer.headers["x-request-id"]
    assert "\n" not in told["error"]["message"]


def test_the_route_that_fits_is_named(client: TestClient) -> None:
    for model, route in (("question_answering", "/v1/answer"), ("summarization", "/v1/summarise")):
        told = client.post("/v1/classify", json={"model": model, "input": "x"}).json()
        assert told["error"]["message"].endswith(f"ask {route}")


def test_more_tokens_than_a_request_may_have(serve: Any) -> None:
    answer = serve(Limits(lanes=1, request_tokens=20)).post("/v1/classify", json={"input": ["superb " * 30] * 2})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "too_long")


def test_models(client: TestClient, metrics: dict) -> None:
    models = client.get("/v1/models").json()["models"]
    assert [model["name"] for model in models if model["first"]] == ["reviews"]
    first = models[0]
    assert (first["task"], first["labels"], first["route"]) == ("classification", ["neg", "pos"], "/v1/classify")
    measured = metrics["evaluations"][0]
    assert first["figures"]["accuracy"] == measured["metrics"]["accuracy"]
    assert first["measured_on"] == {"split": measured["split"], "examples": measured["examples"]}
    assert first["engine"] == "torch fp32"
    whole = client.get("/v1/models/reviews").json()
    assert whole["reliability"] == measured["figures"]["reliability"]
    assert whole["card"].startswith("---\n")
    assert "## Training" in whole["card"]
    assert "/tmp" not in json.dumps(whole)
    assert client.get("/v1/models/nobody").status_code == 404


def test_figures_that_were_never_recorded_are_null(finished: Path, serve: Any, tmp_path: Path) -> None:
    """An export, or a model that comes with distilora, may have no metrics.json beside it."""
    shutil.copytree(finished / "model", tmp_path / "bare")
    pool = Pool("fp32")
    pool.add("bare", str(tmp_path / "bare"))
    client = serve(pool=pool)
    (listed,) = client.get("/v1/models").json()["models"]
    assert (listed["figures"], listed["measured_on"]) == (None, None)
    assert client.get("/v1/models/bare").json()["reliability"] is None
