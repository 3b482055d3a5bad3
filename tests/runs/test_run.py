"""A whole run on the tiny encoder leaves every file it names and learns what there is to learn."""

from pathlib import Path

FILES = ["seen_texts.npy", "run.yaml", "metrics.json", "predictions.parquet", "environment.json", "report.html", "README.md",
         "model/artifact.json", "model/tokenizer.json", "model/check.npz", "model/adapter/adapter_model.safetensors",
         "model/adapter/adapter_config.json"]  # fmt: skip


def test_every_file_is_there(finished: Path) -> None:
    assert [name for name in FILES if not (finished / name).is_file()] == []
    assert list((finished / "events").rglob("*tfevents*"))
    assert not (finished / "checkpoints").exists()


def test_it_learns(metrics: dict) -> None:
    assert metrics["evaluations"][0]["split"] == "heldout"
    assert metrics["evaluations"][0]["metrics"]["auroc"]["value"] > 0.8
    assert metrics["training"]["best_validation_loss"] < 0.6  # chance is 0.693
