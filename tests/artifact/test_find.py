"""Models that `load` finds: Transformers classifiers in folders and in the Hub's cache; what is none is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from support.fresh import verify_here
from support.tiny import tiny_reviews
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distilora.artifact.find import find_model
from distilora.errors import ArtifactError, EncoderError
from distilora.export import export
from distilora.export.export import export_run
from distilora.inference.predictor import load

TEXTS = [*(text for text, _ in tiny_reviews(20, 4)), "superb film " * 60]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def merged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        export_run(finished, "merged", folder)
    return folder


@pytest.fixture
def plain(merged: Path, tmp_path: Path) -> Path:
    """The merged model as anybody's Transformers folder, its tokenizer without truncation."""
    folder = shutil.copytree(merged, tmp_path / "plain", ignore=shutil.ignore_patterns("artifact.json", "*.np?"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_transformers_folder_answers(plain: Path, finished: Path, capsys: Captured) -> None:
    predictor = load(str(plain), "fp32", "cpu")
    assert (
        "has no artifact.json: texts are read uncleaned, and probabilities are not calibrated"
        in capsys.readouterr().err
    )
    assert (predictor.artifact.max_length, predictor.task.labels) == (64, ("neg", "pos"))
    for answer, expected in zip(predictor(TEXTS), load(finished, "fp32", "cpu")(TEXTS), strict=True):
        assert answer == pytest.approx(expected, abs=1e-5)
    assert predictor(TEXTS[-1])["truncated"]


@pytest.mark.parametrize("most", [None, 500])
def test_padding_and_truncation_stored_by_a_call(plain: Path, most: int | None) -> None:
    """What `tokenizer(..., padding=True, truncation=True)` leaves in the file must not reach an answer."""
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer(TEXTS, padding=True, truncation=True, max_length=most)
    tokenizer.save_pretrained(plain)
    stored = Tokenizer.from_file(str(plain / "tokenizer.json"))
    assert stored.padding is not None
    assert stored.truncation["max_length"] == (most or 64)
    model = AutoModelForSequenceClassification.from_pretrained(plain).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(t, truncation=True, max_length=64, return_tensors="pt")).logits for t in TEXTS]
    expected = torch.cat(logits).softmax(-1)[:, 1].tolist()
    predictor = load(plain, "fp32", "cpu")
    assert [answer["p_pos"] for answer in predictor(TEXTS)] == pytest.approx(expected, abs=1e-5)
    assert predictor(TEXTS[0]) == pytest.approx(predictor(TEXTS)[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["plain", "merged", "run"])
def test_the_hub_s_cache(
    kind: str, plain: Path, merged: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"plain": plain, "merged": merged, "run": finished / "model"}[kind]
    repository = tmp_path / "hub" / "models--somebody--reviews"
    shutil.copytree(folder, repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    answers = load("somebody/reviews", "fp32", "cpu")(TEXTS)
    for answer, expected in zip(answers, load(folder, "fp32", "cpu")(TEXTS), strict=True):
        assert answer == pytest.approx(expected, abs=1e-6)
    with pytest.raises(
        ArtifactError, match=r"^somebody/nothing: no such run or folder, and neither the Hub nor its local cache"
    ):
        load("somebody/nothing")


def changed(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        (
            {"architectures": ["DistilBertModel"]},
            ArtifactError,
            "plain: holds DistilBertModel, which is not a text classi",
        ),
        (
            {"architectures": None},
            ArtifactError,
            "plain: holds an encoder of the family distilbert, without a head, which",
        ),
        (
            {"architectures": None, "model_type": None},
            ArtifactError,
            "plain: holds a model that config.json does not name",
        ),
        ({"model_type": None}, ArtifactError, r"plain: config\.json is damaged \(it names no model_type\)"),
        ({"id2label": {"0": "LABEL_0"}}, ArtifactError, "multi-label classification are not supported"),
        ({"problem_type": "multi_label_classification"}, ArtifactError, "multi-label classification are not supported"),
        ({"auto_map": {"AutoModel": "x.Y"}}, ArtifactError, "needs code of its own, which is never run"),
        ({"id2label": {"0": "a", "2": "b"}}, ArtifactError, "config.json is damaged"),
        ({"model_type": "gpt2"}, EncoderError, "family 'gpt2' is not supported"),
    ],
)
def test_what_is_no_classifier(fields: dict[str, Any], error: type, said: str, plain: Path) -> None:
    changed(plain, **fields)
    with pytest.raises(error, match=said) as raised:
        find_model(plain)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "said"), [("model.safetensors", "safetensors weights"), ("tokenizer.json", "tokenizer.json")]
)
def test_what_lacks_a_file(file: str, said: str, plain: Path) -> None:
    (plain / file).unlink()
    with pytest.raises(ArtifactError, match=f"has no {said}"):
        find_model(plain)
    (plain / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json is damaged"):
        find_model(plain)


def test_a_run_that_is_not_finished_is_said(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    assert find_model(folder).folder == folder / "model"
    assert capsys.readouterr().err == ""
    (folder / "metrics.json").unlink()
    find_model(folder)
    told = f"warning: {folder}: this run is not finished; finish it with: distilora train --resume {folder}\n"
    assert capsys.readouterr().err == told
    with pytest.raises(ArtifactError, match="int given; give the folder of a run"):
        find_model(3)
