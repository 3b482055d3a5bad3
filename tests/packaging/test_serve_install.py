"""`pip install 'distilora[serve]'` in an empty environment: no PyTorch, no Transformers, and it predicts from an export."""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

from distilora.export.export import export_run
from distilora.inference.predictor import load

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_an_empty_environment(finished: Path, tmp_path: Path) -> None:
    export_run(finished, "onnx", tmp_path / "graph")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), f"{ROOT}[serve]"]
    subprocess.run(install, check=True, timeout=300)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True, env=clean
    )
    have = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "onnxruntime" in have
    assert not have & {"torch", "transformers", "peft", "onnx"}
    command = [tmp_path / "venv" / "bin" / "distilora", "predict", tmp_path / "graph", "superb film", "dull", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean, cwd=tmp_path)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer, expected in zip(answers, load(tmp_path / "graph")(["superb film", "dull"]), strict=True):
        assert answer["label"] == expected["label"]
        assert answer["p_pos"] == pytest.approx(expected["p_pos"], abs=1e-5)
