"""Nothing lost on reload. Every head layer is saved.

A fresh process reloads the model and must give back its outputs, bit for bit, before a run counts as finished.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.corrupted import corrupt
from support.fresh import COMPARE, Fresh
from support.tiny import tiny_config
from transformers import AutoConfig, AutoModelForSequenceClassification

from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact
from distilora.errors import RoundTripError
from distilora.export import save as saving
from distilora.export.roundtrip import compare, verify
from distilora.inference.predictor import load
from distilora.model import weights
from distilora.model.adapters.methods import METHODS
from distilora.model.adapters.saved import Saved
from distilora.model.network import Network
from distilora.runs import run


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's model, to spoil."""
    return shutil.copytree(finished / "model", tmp_path / "model")


@pytest.mark.parametrize("method", METHODS)
def test_every_head_layer_is_saved(method: str, runs: dict[str, Path], encoder: Path) -> None:
    whole = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(encoder)).state_dict()
    head = {name for name in whole if not name.startswith("distilbert.")}
    assert {name.partition(".")[0] for name in head} == {"pre_classifier", "classifier"}
    (file,) = (runs[method] / "model").rglob("*.safetensors")
    saved = {name.removeprefix("base_model.model."): weight for name, weight in load_file(file).items()}
    assert set(saved) >= head
    assert all(saved[name].any() for name in head if name.endswith("bias"))  # those of an untrained head are zero


def test_a_fresh_process_gave_back_the_finished_run_s_outputs(metrics: dict) -> None:
    assert metrics["round_trip"]["texts"] == 32
    assert metrics["round_trip"]["run_precision"] == {"precision": "fp32", "largest_difference": 0.0, "allowed": 0.0}
    assert metrics["round_trip"]["fp32"]["largest_difference"] <= metrics["round_trip"]["fp32"]["allowed"] == 1e-5


def test_a_fresh_process_gives_back_every_run(runs: dict[str, Path], fresh: Fresh) -> None:
    assert set(runs) == set(METHODS)
    done = fresh(*runs.values(), code=COMPARE)
    assert done.code == 0, done.err
    for method, line in zip(runs, done.out.splitlines(), strict=True):
        comparison = json.loads(line)
        assert comparison["texts"] == 32
        assert comparison["run_precision"] == {"precision": "fp32", "largest_difference": 0.0, "allowed": 0.0}
        assert comparison["fp32"]["largest_difference"] == 0.0
        assert comparison == json.loads((runs[method] / "metrics.json").read_text("utf-8"))["round_trip"]
        assert read_check(read_artifact(runs[method]).folder).outputs.std(0).min() > 0.01  # texts are told apart


def test_one_changed_weight_is_found(model: Path) -> None:
    corrupt(model, 1e-3)
    artifact = read_artifact(model)  # its checksum fits: only the outputs give it away
    with pytest.raises(RoundTripError, match="a fresh process does not give back the model's outputs") as error:
        verify(model, load(model).task, "cpu")
    assert "run_precision (fp32): outputs differ by 0.001 (allowed 0), most at text " in str(error.value)
    assert error.value.exit_code == 1
    with pytest.raises(RoundTripError, match=r"outputs differ by 0\.001"):
        compare(artifact, "cpu")


def test_a_run_fails_with_its_round_trip(
    encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_wrongly(trained: Network, folder: Path, form: Saved) -> None:
        weights.save_weights(trained, folder, form)
        corrupt(folder, 1e-4)

    monkeypatch.setattr(saving, "save_weights", save_wrongly)
    with pytest.raises(RoundTripError, match=r"outputs differ by 0\.0001"):
        run.train(tiny_config(tmp_path / "run", reviews, encoder, training__epochs=1))
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert (tmp_path / "run" / "model.rejected" / "artifact.json").is_file()
