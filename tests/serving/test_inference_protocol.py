"""The open inference protocol, version 2."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora.inference.predictor import load


def tensor(data: Any, shape: Any = None, datatype: str = "BYTES") -> dict[str, Any]:
    return {"name": "text", "shape": shape or [len(data)], "datatype": datatype, "data": data}


def infer(client: TestClient, *inputs: Any, model: str = "reviews", **more: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


def test_metadata_and_health(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "distilora"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/reviews/ready").json() == {"name": "reviews", "ready": True}
    told = client.get("/v2/models/reviews").json()
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["outputs"]] == [
        ("label", "BYTES", [-1]), ("score", "FP32", [-1]), ("probabilities", "FP32", [-1, 2])
    ]  # fmt: skip
    assert set(client.get("/v2/models/nobody").json()) == {"error"}
    assert client.get("/v2/models/nobody").status_code == client.get("/v2/models/nobody/ready").status_code == 404


@pytest.mark.parametrize(
    ("data", "shape"), [(["superb", "dull"], [2]), ([["superb"], ["dull"]], [2, 1]), (["superb", "dull"], [2, 1])]
)
def test_infer(data: Any, shape: list[int], client: TestClient, finished: Path) -> None:
    told = infer(client, tensor(data, shape), id="seven").json()
    assert (told["model_name"], told["id"]) == ("reviews", "seven")
    label, score, probabilities = told["outputs"]
    own = load(finished, "fp32")(["superb", "dull"])
    assert (label["datatype"], label["shape"], label["data"]) == ("BYTES", [2], [answer["label"] for answer in own])
    assert score["data"] == pytest.approx([answer["score"] for answer in own], abs=1e-5)
    assert probabilities["shape"] == [2, 2]
    assert probabilities["data"] == pytest.approx([a[f"p_{n}"] for a in own for n in ("neg", "pos")], abs=1e-5)


def test_some_outputs_and_other_tasks(client: TestClient) -> None:
    told = infer(client, tensor(["superb"]), outputs=[{"name": "label"}]).json()
    assert [one["name"] for one in told["outputs"]] == ["label"]
    assert "id" not in told
    told = infer(client, tensor(["superb"]), model="regression").json()
    assert [(one["name"], one["shape"]) for one in told["outputs"]] == [("value", [1])]
    told = infer(client, tensor(["superb"]), model="multilabel").json()
    assert [(one["name"], one["shape"]) for one in told["outputs"]] == [("labels", [1]), ("probabilities", [1, 2])]


@pytest.mark.parametrize(
    ("inputs", "more", "model", "status"),
    [
        ([], {}, "reviews", 400),
        ([tensor(["a"]), tensor(["a"])], {}, "reviews", 400),
        ([tensor(["a"], [2])], {}, "reviews", 400),
        ([tensor([1.0], None, "FP32")], {}, "reviews", 400),
        ([tensor([1])], {}, "reviews", 400),
        ([tensor([["a", "b"]])], {}, "reviews", 400),
        (
            [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}],
            {},
            "reviews",
            400,
        ),
        ([tensor([" "])], {}, "reviews", 400),
        ([tensor(["a"])], {"outputs": [{"name": "logits"}]}, "reviews", 400),
        ([tensor(["a"])], {"outputs": "label"}, "reviews", 400),
        ([tensor(["a"])], {"id": 7}, "reviews", 400),
        ([tensor(["a"])], {}, "nobody", 404),
        ([tensor(["a"])], {}, "summarization", 400),
    ],
)
def test_refused(inputs: Any, more: dict[str, Any], model: str, status: int, client: TestClient) -> None:
    answer = infer(client, *inputs, model=model, **more)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
