"""The round trip: what it compares, what it refuses, and the settings of PyTorch that its fresh process takes over."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.corrupted import ADAPTER, corrupt

from distilora.artifact.check import Check, pack_check, read_check
from distilora.artifact.format import read_artifact, sealed
from distilora.batching.tokens import read_tokenizer, tokenise
from distilora.errors import ArtifactError
from distilora.export import torch_settings
from distilora.export.roundtrip import compare, verify
from distilora.files.atomic import sha256
from distilora.inference.backends import open_backend
from distilora.inference.lanes import run_rows
from distilora.inference.predictor import load
from distilora.tasks.registry import restore

TASK = {
    "name": "classification",
    "settings": {"labels": ["neg", "pos"], "text_column": "text", "label_column": "label"},
}


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's model, to spoil."""
    return shutil.copytree(finished / "model", tmp_path / "model")


def test_the_outputs_are_those_of_prediction(finished: Path) -> None:
    check = read_check(read_artifact(finished).folder)
    predictor = load(finished, precision="fp32")
    answers = predictor.answer(check.examples)
    expected = torch.softmax(torch.from_numpy(check.outputs) / predictor.artifact.temperature, -1)[:, 1]
    np.testing.assert_allclose([answer["p_pos"] for answer in answers], expected, atol=1e-6)
    assert compare(predictor.artifact, "cpu")["texts"] == len(answers)


def test_outputs_that_are_no_numbers_are_found(model: Path) -> None:
    corrupt(model, float("nan"))
    with pytest.raises(ArtifactError, match="outputs are not finite"):
        compare(read_artifact(model), "cpu")


def test_another_checksum_is_found(model: Path) -> None:
    weights = model / ADAPTER
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        compare(read_artifact(model), "cpu")


def checked_here(model: Path) -> None:
    """Has the model's check say what this process computes."""
    artifact = read_artifact(model)
    check = read_check(artifact.folder)
    rows = tokenise(read_tokenizer(model / "tokenizer.json"), check.examples).rows
    outputs = run_rows(rows, open_backend(artifact, "fp32", "cpu"), artifact.token_budget)
    (model / "check.npz").write_bytes(pack_check(Check(check.examples, outputs, outputs)))
    fields = json.loads((model / "artifact.json").read_text())
    fields["files"]["check.npz"] = sha256(model / "check.npz")
    (model / "artifact.json").write_text(json.dumps(sealed(fields)))


def test_the_fresh_process_computes_as_this_one_and_runs_nothing_that_lies_about(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's user may have set anything, and may stand in any folder."""
    child = tmp_path / "numerics"
    (tmp_path / "sitecustomize.py").write_text(  # Python imports it at its start
        "import atexit, json, sys\n"
        "def tell():\n"
        "    from distilora.export.torch_settings import settings\n"
        f"    open({str(child)!r}, 'w').write(json.dumps(settings()))\n"
        "if '-c' in sys.orig_argv:\n"
        "    atexit.register(tell)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"))
    work = tmp_path / "work"
    work.mkdir()
    for name in ("safetensors", "numpy", "json", "distilora"):
        (work / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\nraise SystemExit(3)\n")
    monkeypatch.chdir(work)
    before = torch_settings.settings()
    changed = {"threads": 2 if before["threads"] == 1 else 1, "float32_matmul_precision": "medium", "mkldnn": False}
    try:
        torch_settings.compute_under(changed)
        checked_here(model)
        comparison = verify(model, restore(**TASK), "cpu")
    finally:
        torch_settings.compute_under(before)
    assert comparison["run_precision"]["largest_difference"] == comparison["fp32"]["largest_difference"] == 0
    assert json.loads(child.read_text()) == {**before, **changed}
    assert not (tmp_path / "executed").exists()


def test_settings_by_pytorch_s_newer_names_are_taken_over() -> None:
    code = (
        "import torch; from distilora.export.torch_settings import compute_under, settings; "
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'; "
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'; told = settings(); "
        "torch.backends.mkldnn.matmul.fp32_precision = 'ieee'; compute_under(told); assert settings() == told; "
        "print(torch.backends.mkldnn.matmul.fp32_precision)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "bf16\n", done.stderr
