"""Nothing lost on the way. Kill a run at any moment and resume it: it ends with the same bits.

`bench/kill_resume.py` counts this on real reviews; details are in tests/runs/test_resume.py, tests/runs/test_full_disk.py
and tests/training/test_checkpoint_killed.py.
"""

import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.fresh import COMMAND, Fresh
from support.stopping import curves, temporary, told, write_recipe
from support.tiny import tiny_config
from support.writers import config_of, write_model

from distilora.artifact.format import read_artifact
from distilora.config.schema import RunConfig
from distilora.errors import ArtifactError
from distilora.runs.run import train

DYING = """
import importlib, os
place, number, death = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
module, _, name = place.rpartition(".")
owner = importlib.import_module("distilora." + module)
called, calls = getattr(owner, name), iter(range(1, 10**6))
def dying(*words, **more):
    if next(calls) == number:
        os.kill(os.getpid(), death)
    return called(*words, **more)
setattr(owner, name, dying)
"""


def test_killed_in_a_checkpoint_and_in_the_round_trip(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, fresh: Fresh
) -> None:
    out = tmp_path / "run"
    config = tiny_config(out, reviews, encoder, training__tracker="tensorboard", training__checkpoint_every=20)
    words = [write_recipe(tmp_path / "recipe.yaml", config)]
    for place, number in (("training.checkpoint.save_file", 7), ("runs.run.verified", 1)):
        killed = fresh(place, number, signal.SIGKILL, "train", *words, code=DYING + COMMAND)
        assert killed.code == -signal.SIGKILL, killed.err
        assert not (out / "metrics.json").exists()
        words = ["--resume", str(out)]
    done = fresh("train", *words)
    assert done.code == 0, done.err
    assert told(out) == told(finished)
    assert curves(out) == curves(finished)
    assert temporary(out) == []


def test_a_terminated_run_resumes_to_the_same_model(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, fresh: Fresh
) -> None:
    output = tmp_path / "run"
    config = tiny_config(output, reviews, encoder, training__checkpoint_every=1)  # that apart, the finished run's
    recipe = write_recipe(tmp_path / "recipe.yaml", config)
    stopped = fresh("training.loop.make_update", 30, signal.SIGTERM, "train", recipe, code=DYING + COMMAND)
    assert stopped.code == 143, stopped.err
    *_, update, command = stopped.err.strip().splitlines()[-1].removeprefix("distilora: stopped ").split("; ")
    assert update == "after update 30 of 120"
    assert command == f"continue with: distilora train --resume {output}"
    assert not (output / "model").exists()
    assert not (output / "metrics.json").exists()
    with pytest.raises(ArtifactError, match=f"not finished; continue it with: distilora train --resume {output}"):
        read_artifact(output)

    latest = max((output / "checkpoints").iterdir())
    shutil.copytree(latest, output / "checkpoints" / "00009999")  # a later one, torn
    (output / "checkpoints" / "00009999" / "trained.safetensors").write_bytes(b"torn")
    resumed = fresh("train", "--resume", output)
    assert resumed.code == 0, resumed.err
    assert "resuming after update 30 of 120" in resumed.err
    assert told(output) == told(finished)
    assert not (output / "checkpoints").exists()
    again = fresh("train", "--resume", output)
    assert again.code == 2
    assert "is finished; see its report.html" in again.err


DRIVER = """
import importlib, json, os, signal, sys, time
import datasets, matplotlib.pyplot, pyarrow, sklearn.metrics, tensorboard  # once, for all that are forked below
from distilora.cli import main as cli
from distilora.training import loop as fit
from distilora.training import memory
from distilora.runs import run

memory.after_imports_mb()
recipe, folder, kills = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
for place, number, seconds in [*kills, [None, 0, 0]]:
    here, there = os.pipe()
    child = os.fork()
    if not child:
        if place:
            module, _, name = place.rpartition(".")
            owner = importlib.import_module("distilora." + module)
            called, calls = getattr(owner, name), iter(range(1, 10**6))
            def announce(*words, **more):
                if next(calls) == number:
                    os.write(there, b"now")
                return called(*words, **more)
            setattr(owner, name, announce)
        words = ["--resume", folder] if os.path.exists(folder + "/run.yaml") else [recipe]
        os._exit(cli.main(["train", *words]))
    os.close(there)
    if os.read(here, 3):
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    print(json.dumps([place, os.waitpid(child, 0)[1]]), flush=True)
"""
KILLS = [  # the nth call of a function in its process, and how long it may take
    ("training.loop.make_update", 3, 0.03),
    ("training.loop.make_update", 9, 0.03),
    ("training.loop.save_checkpoint", 2, 0.02),
    ("training.loop.validate", 1, 0.02),
    ("training.loop.save_checkpoint", 1, 0.02),
    ("training.loop.make_update", 33, 0.03),
    ("training.loop.validate", 1, 0.02),
    ("runs.run.write_model", 1, 0.3),
    ("runs.run.verified", 1, 1.0),
    ("runs.run.measure", 1, 0.3),
    ("runs.run.write_outcome", 1, 0.1),
    ("training.prefix_cache._reserve", 1, 0.05),
    ("training.prefix_cache._reserve", 2, 0.1),
]


def _stage(kill: tuple[str, int, float]) -> int:
    """Where in a run: a cache is filled again after each kill, but not once training is over."""
    return {"training.prefix_cache": 0, "training.loop": 1, "runs.run": 2}[kill[0].rpartition(".")[0]]


def kill(config: RunConfig, kills: list[tuple[str, int, float]], rng: random.Random, folder: Path) -> None:
    """Kill a run at every one of these places, resume it each time, and let it end."""
    timed = [(place, number, rng.uniform(0, seconds)) for place, number, seconds in sorted(kills, key=_stage)]
    words = [write_recipe(folder / "recipe.yaml", config), config.output, json.dumps(timed)]
    done = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, timeout=300)
    met = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert met == [[place, signal.SIGKILL] for place, *_ in timed] + [[None, 0]], done.stderr


@pytest.mark.slow
def test_killed_again_and_again(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    """With a frozen block: its states are computed once, for both validations and eight epochs."""
    untouched, out, rng = tmp_path / "untouched", tmp_path / "run", random.Random(1)
    changes = {"adapter__last_blocks": 1, "training__checkpoint_every": 5, "training__tracker": "tensorboard"}
    changes["training__cache_gb"] = 0.0  # nothing is kept: the states are computed again after each kill
    train(tiny_config(untouched, reviews, encoder, **changes))
    assert json.loads((untouched / "metrics.json").read_text())["training"]["prefix_cache"]["bytes"] > 0
    config = tiny_config(out, reviews, encoder, **changes)
    kill(config, KILLS, rng, tmp_path)
    assert told(out) == told(untouched)
    assert temporary(out) == []
    assert not (out / "checkpoints").exists()
    assert not (out / "cache").exists()
    assert curves(out) == curves(untouched)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_killed_again_and_again(family: str, tmp_path: Path) -> None:
    """Every state of the decoder comes back, too, and generation begins where it should."""
    pytest.importorskip("rouge_score")
    model, changes = (
        write_model(tmp_path / "model", family, 0.2),
        {"training__epochs": 8, "training__checkpoint_every": 5, "training__tracker": "tensorboard"},
    )
    untouched = config_of(tmp_path, model, 200, **changes)
    train(untouched)
    config = dataclasses.replace(untouched, output=str(tmp_path / "again"))
    kill(config, [KILLS[i] for i in (0, 2, 3, 7, 9)], random.Random(2), tmp_path)
    assert told(tmp_path / "again") == told(tmp_path / "run")
    assert temporary(tmp_path / "again") == []
    assert curves(tmp_path / "again") == curves(tmp_path / "run")
