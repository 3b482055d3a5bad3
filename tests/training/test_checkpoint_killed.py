"""Killed at any operation on a file, a checkpoint is whole, or is not there."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import Trained, fresh, step
from support.stopping import temporary

from distilora.files.locks import let_go
from distilora.runs.folder import claim
from distilora.training import checkpoint
from distilora.training.checkpoint import Best, State, load_checkpoint, save_checkpoint


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
        expected = {}
        for seed, update in enumerate(updates):
            state, *parts = prepared(update, seed)
            expected[seed] = everything(*parts)
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
        loaded = load_checkpoint(folder, "ours", trained, optimizer)
        if loaded is None:
            assert len(updates) == 1, f"none left, killed after {done}"
            found_seeds.append(-1)
            continue
        seed = int(loaded[0].seconds)
        assert seed >= len(updates) - 2, f"{loaded[0]}, killed after {done}"
        assert loaded[0].update == updates[seed]
        for ours, theirs in zip(everything(trained, optimizer, loaded[1]), expected[seed], strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs), f"mixed, killed after {done}"
        found_seeds.append(seed)
        if survived:
            break
    assert found_seeds == sorted(found_seeds)  # once the new one is there, it stays
    assert {*found_seeds} == {len(updates) - 2, len(updates) - 1}
    assert len(found_seeds) > 15
