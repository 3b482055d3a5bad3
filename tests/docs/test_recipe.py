"""The first recipe on fewer of its real reviews, as typed: left alone, and stopped by SIGTERM and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.stopping import without_times

from distilora.files.atomic import sha256

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "distilora", "train"]
FEWER = ["--data.train_size", "320", "--data.validation_size", "64", "--data.heldout", "0.01",
         "--training.checkpoint_every", "2"]  # fmt: skip
ALL_CORES = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


def train(*words: str, stop: bool = False) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, env=ALL_CORES, stderr=subprocess.PIPE, text=True)
    if stop:
        folder = Path(words[words.index("--output") + 1])
        while not list(folder.glob("checkpoints/0*")) and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
    _, said = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, stderr=said)


@pytest.mark.slow
def test_stopped_and_resumed_on_real_reviews(tmp_path: Path) -> None:
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    done = train("recipes/imdb-embedded.yaml", "--output", str(alone), *FEWER)
    assert done.returncode == 0, done.stderr
    half = train("recipes/imdb-embedded.yaml", "--output", str(stopped), *FEWER, stop=True)
    assert half.returncode == 143, half.stderr
    assert f"distilora train --resume {stopped}" in half.stderr
    rest = train("--resume", str(stopped))
    assert rest.returncode == 0, rest.stderr

    first, second = (json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (alone, stopped))
    assert without_times(first["evaluations"]) == without_times(second["evaluations"])
    assert first["data"]["train"] == 320
    adapter = "model/adapter/adapter_model.safetensors"
    assert sha256(alone / adapter) == sha256(stopped / adapter)
