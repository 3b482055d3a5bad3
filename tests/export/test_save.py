"""A run of every method: what its artifact says, what is counted, and on which base it may be put."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from support.tiny import tiny_reviews

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.errors import ArtifactError
from distilora.export.save import agreement
from distilora.files.tables import read_table
from distilora.inference.predictor import load
from distilora.model.adapters.methods import METHODS
from distilora.tasks.classification import Classification

Captured = pytest.CaptureFixture[str]
HEAD = {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}


@pytest.fixture(scope="module")
def summaries(runs: dict[str, Path]) -> dict[str, dict]:
    """metrics.json of a run of each method."""
    return {method: json.loads((folder / "metrics.json").read_text("utf-8")) for method, folder in runs.items()}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved(method: str, runs: dict[str, Path], summaries: dict[str, dict]) -> None:
    artifact, model, summary = read_artifact(runs[method]), runs[method] / "model", summaries[method]
    assert (artifact.method, summary["method"]) == (method, method)
    assert artifact.weights == METHODS[method].saved
    assert set(summary["memory"]) == {"weights_mb", "gradients_mb", "optimizer_mb", "activations_mb", "peak_mb"}
    if artifact.weights == "peft":
        assert not (model / "delta").exists()
        saved = load_file(model / "adapter/adapter_model.safetensors")
    else:
        assert not (model / "adapter").exists()
        assert [file.name for file in (model / "delta").iterdir()] == ["delta.safetensors"]
        saved = load_file(model / "delta/delta.safetensors")
        assert set(saved) == HEAD if method == "head" else set(saved) > HEAD
    assert summary["parameters"]["trained"] == sum(weight.numel() for weight in saved.values())


def test_parameters_are_counted_whatever_they_take(summaries: dict[str, dict]) -> None:
    counted = {method: summary["parameters"] for method, summary in summaries.items()}
    assert counted["qlora"] == counted["lora"]
    assert counted["full"]["total"] == counted["head"]["total"] == counted["full"]["trained"]
    assert counted["full"]["share"] == 1.0
    lora = 8 * 2 * (4 * (32 + 32) + 2 * (32 + 64))  # r times in and out of the six layers of each of two blocks
    assert counted["lora"]["total"] == counted["full"]["total"] + lora
    assert counted["lora"]["trained"] == counted["head"]["trained"] + lora


def test_only_qlora_s_base_is_quantised(runs: dict[str, Path], summaries: dict[str, dict]) -> None:
    for method, folder in runs.items():
        artifact = read_artifact(folder)
        assert summaries[method]["agreement"] == artifact.agreement
        if method != "qlora":
            assert (artifact.quantisation, artifact.agreement) == (None, {})
    assert read_artifact(runs["qlora"]).quantisation == {
        "library": "bitsandbytes", "type": "nf4", "block": 64, "double": True,
        "version": metadata.version("bitsandbytes"),
    }  # fmt: skip


def test_agreement_on_either_base(runs: dict[str, Path], capsys: Captured) -> None:
    agreed = read_artifact(runs["qlora"]).agreement
    assert set(agreed) == {"4bit", "full"}
    assert agreed["4bit"] == {"texts": 40, "largest_difference": 0.0, "labels": 1.0}
    assert agreed["full"]["texts"] == 40
    assert agreed["full"]["largest_difference"] > 0.01

    rows = [record.values for record in read_table(runs["qlora"] / "predictions.parquet")]
    rows = [row for row in rows if row["split"] == "validation"]
    texts = [tiny_reviews(300)[int(row["place"].rsplit(" ", 1)[1]) - 1][0] for row in rows]
    ours = [row["label"] for row in rows]
    capsys.readouterr()
    for base in ("auto", "4bit", "full"):
        predictor = load(runs["qlora"], "fp32", "cpu", base=base)
        said = capsys.readouterr().err
        answers = predictor(texts)
        if base == "full":
            labels = agreed["full"]["labels"]
            assert said == (
                "note: on the full-precision encoder instead of the 4-bit one of training; on 40 validation texts "
                f"{labels:.2%} of the labels were the same\n"
            )
            assert np.mean([a["label"] == b for a, b in zip(answers, ours, strict=True)]) == labels
        else:
            assert said == ""
            assert [answer["p_pos"] for answer in answers] == [row["p_pos"] for row in rows]


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_no_4_bit_base_for_what_was_not_trained_on_one(method: str, runs: dict[str, Path], capsys: Captured) -> None:
    with pytest.raises(ArtifactError) as error:
        load(runs[method], base="4bit")
    said = f"base: 4bit asked for, but this model was trained by {method}, on the full-precision encoder; drop it"
    assert str(error.value) == said
    capsys.readouterr()
    assert main(["predict", str(runs[method]), "superb", "--base", "4bit"]) == 2
    assert capsys.readouterr().err == f"distilora: --{said}\n"
    answer, full = (load(runs[method], "fp32", base=base)("superb") for base in ("auto", "full"))
    assert answer == full
    assert capsys.readouterr().err == ""


def test_agreement() -> None:
    task = Classification(("neg", "pos"), "text", "label")
    ours = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]], np.float32)
    theirs = np.array([[0.5, 0.0], [2.0, 1.0], [0.0, 2.75]], np.float32)
    assert agreement(task, ours, theirs) == {"texts": 3, "largest_difference": 1.0, "labels": 2 / 3}
    assert agreement(task, ours[:, 0], theirs[:, 0]) == {"texts": 3, "largest_difference": 0.5}
