"""Predicting imports neither torch nor the trainer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.answered import read, table

from distilora.inference.predictor import load

NO_TORCH = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "accelerate", "sklearn"):
            raise ImportError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import distilora.inference.predictor
from distilora.inference.table import predict_table
from distilora.artifact.format import read_artifact
from distilora.errors import MissingExtra

class Backend:
    precision = "fp32"
    token_budget, lanes = 64, 1
    def run(self, rows):
        return np.stack([np.zeros(rows.groups), rows.group_lengths - 5.0], axis=1).astype(np.float32)

artifact = read_artifact(sys.argv[1])
predictor = distilora.inference.predictor.Predictor(artifact, Backend())
answers = predictor(json.loads(sys.argv[2]))
predict_table(predictor, sys.argv[3], sys.argv[4])
try:
    distilora.inference.predictor.load(sys.argv[1])
except MissingExtra as error:
    said = str(error)
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers", "peft", "accelerate"})
trainer = [name for name in ("distilora.runs.run", "distilora.training.loop", "distilora.model.build") if name in sys.modules]
print(json.dumps({"answers": answers, "said": said, "heavy": heavy, "trainer": trainer}))
"""


def test_no_torch_is_needed(finished: Path, tmp_path: Path) -> None:
    source = table("csv", tmp_path, ["film " * 9, "", "film"])
    texts = ["film", "film " * 20, "film " * 3]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(finished), json.dumps(texts), str(source), str(tmp_path / "out.csv")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [answer["label"] for answer in report["answers"]] == ["neg", "pos", "neg"]
    scaled = (np.asarray([3, 22, 5]) - 5.0) / load(finished, "fp32").artifact.temperature
    assert [answer["p_pos"] for answer in report["answers"]] == pytest.approx(1 / (1 + np.exp(-scaled)))
    assert [row["label"] for row in read(tmp_path / "out.csv")] == ["pos", "", "neg"]
    assert "torch is not installed; install it with: pip install 'distilora[train]'" in report["said"]
    assert (report["heavy"], report["trainer"]) == ([], [])
