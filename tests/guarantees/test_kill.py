"""Killed at any moment, a run goes on to the end it would have had; a checkpoint is whole, or is not there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import Trained, fresh, save, step
from support.stopping import curves, temporary, told, write_recipe
from support.tiny import tiny_config

from distilora.files.locks import let_go
from distilora.runs.folder import claim
from distilora.runs.run import train
from distilora.training import checkpoint
from distilora.training.checkpoint import Best, State, load_checkpoint, save_checkpoint

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
    ("runs.run.write_outcome", 1, 0.3),
    ("training.prefix_cache._reserve", 1, 0.05),
    ("training.prefix_cache._reserve", 2, 0.1),
]


def _stage(kill: tuple[str, int, float]) -> int:
    """Where in a run: a cache is filled again after each kill, but not once training is over."""
    return {"training.prefix_cache": 0, "training.loop": 1, "runs.run": 2}[kill[0].rpartition(".")[0]]


@pytest.mark.slow
def test_killed_again_and_again(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    """With a frozen block: its states are computed once, for both validations and eight epochs."""
    untouched, out, rng = tmp_path / "untouched", tmp_path / "run", random.Random(1)
    changes = {"adapter__last_blocks": 1, "training__checkpoint_every": 5, "training__tracker": "tensorboard"}
    train(tiny_config(untouched, reviews, encoder, **changes))
    assert json.loads((untouched / "metrics.json").read_text())["training"]["prefix_cache"]["bytes"] > 0
    config = tiny_config(out, reviews, encoder, **changes)
    kills = [(place, number, rng.uniform(0, seconds)) for place, number, seconds in sorted(KILLS, key=_stage)]
    words = [write_recipe(tmp_path / "recipe.yaml", config), str(out), json.dumps(kills)]
    done = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, timeout=300)
    met = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert met == [[place, signal.SIGKILL] for place, *_ in kills] + [[None, 0]], done.stderr
    assert told(out) == told(untouched)
    assert temporary(out) == []
    assert not (out / "checkpoints").exists()
    assert not (out / "cache").exists()
    assert curves(out) == curves(untouched)


class Killed(BaseException):
    pass


def kill_at(operation: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Has the nth operation on files kill the process: it is not done, nor is any after it. Gives those that were."""
    done: list[str] = []
    dead = False

    def mortal(owner: Any, name: str) -> None:
        called = getattr(owner, name)

        def call(*words: Any, **more: Any) -> Any:
            nonlocal dead
            if dead:
                return None
            if len(done) == operation:
                dead = True
                if name == "rmtree" and Path(words[0]).is_dir():  # halfway
                    next(Path(words[0]).iterdir()).unlink()
                raise Killed
            done.append(name)
            return called(*words, **more)

        patch.setattr(owner, name, call)

    mortal(checkpoint, "save_file")
    mortal(shutil, "rmtree")
    mortal(Path, "write_text")
    for name in ("mkdir", "rename", "replace", "fsync"):
        mortal(os, name)
    return done


def prepared(update: int, seed: int) -> tuple[State, Trained, torch.optim.AdamW, Best]:
    trained, optimizer = fresh(seed)
    torch.manual_seed(seed)
    step(trained, optimizer)
    best = Best({name: p.detach() + seed for name, p in trained.items()}, torch.randn(5, 2))
    return State("ours", update, seconds=seed), trained, optimizer, best


def everything(trained: Trained, optimizer: torch.optim.AdamW, best: Best) -> list[torch.Tensor | None]:
    moments = [value for p in trained.values() for _, value in sorted(optimizer.state[p].items())]
    return [*trained.values(), *moments, *best.weights.values(), best.outputs, torch.get_rng_state()]


@pytest.mark.parametrize("updates", [[6], [5, 6], [4, 5, 6], [5, 5], [4, 5, 5]])  # the same again: once validated
def test_killed_at_any_operation_of_a_checkpoint(
    updates: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_seeds = []
    for operation in range(100):
        folder = tmp_path / str(operation) / "checkpoints"
        wanted = {}
        for seed, update in enumerate(updates):
            state, *parts = prepared(update, seed)
            wanted[seed] = everything(*parts)
            with monkeypatch.context() as patch:
                done = kill_at(operation if seed == len(updates) - 1 else 1000, patch)
                try:
                    save_checkpoint(folder, state, *parts)
                    survived = True
                except Killed:
                    survived = False
        claim(folder.parent, overwrite=False, resume=True)  # what is left is swept
        let_go(folder.parent)
        assert temporary(folder.parent) == []
        trained, optimizer = fresh(99)
        found = load_checkpoint(folder, "ours", trained, optimizer)
        if found is None:
            assert len(updates) == 1, f"none left, killed after {done}"
            found_seeds.append(-1)
            continue
        seed = int(found[0].seconds)
        assert seed >= len(updates) - 2, f"{found[0]}, killed after {done}"
        assert found[0].update == updates[seed]
        for ours, theirs in zip(everything(trained, optimizer, found[1]), wanted[seed], strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs), f"mixed, killed after {done}"
        found_seeds.append(seed)
        if survived:
            break
    assert found_seeds == sorted(found_seeds)  # once the new one is there, it stays
    assert {*found_seeds} == {len(updates) - 2, len(updates) - 1}
    assert len(found_seeds) > 15


@pytest.mark.parametrize(
    "name",
    ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "best.safetensors", "state.json",
     "checksums.json"],
)  # fmt: skip
def test_one_changed_byte_anywhere_is_noticed(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, *_ = save(tmp_path, 5)
    save(tmp_path, 6)
    file = tmp_path / "00000006" / name
    content = file.read_bytes()
    rng = random.Random(name)
    for place in {0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(50))}:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        trained, optimizer = fresh(1)
        found = load_checkpoint(tmp_path, "ours", trained, optimizer)
        assert found is not None
        assert found[0].update == 5, f"byte {place}"
        assert all(torch.equal(trained[n], parameter) for n, parameter in before.items())
        assert f"{file.parent} is damaged" in capsys.readouterr().err
