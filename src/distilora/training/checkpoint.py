"""Writes and loads checkpoints: all that training needs to resume exactly where it stopped, as safetensors and JSON.

`checkpoints/UPDATE/` holds the trainable weights, AdamW's moments, the random state, the best weights so far and the
position in the schedule. A checkpoint is written under a temporary name, flushed to disk and renamed; the last two are
kept. One whose checksums do not match is skipped with a message, and the one before it is loaded.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from distilora.errors import ConfigError
from distilora.files.atomic import flush_file, flush_folder, replacing_folder, sha256
from distilora.progress import say

KEEP = 2


@dataclass
class State:
    """Progress of a run. `update` alone is the position in the data: the batches are a pure function of it and the seed."""

    fingerprint: str  # of data and settings; a checkpoint with another fingerprint is refused
    update: int = 0  # updates done
    validated: int = -1  # updates done at the last validation
    best_loss: float = float("inf")
    best_update: int = -1
    stale: int = 0  # validations since the best
    seconds: float = 0.0  # spent training and validating
    updating: float = 0.0  # of these, spent on updates and on the cached states that they read
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Best:
    """Best weights so far, with their validation outputs."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: torch.Tensor | None = None


def save_checkpoint(
    folder: Path, state: State, trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, best: Best
) -> Path:
    """Write `folder/UPDATE/`, then remove all checkpoints but the last two; none is removed if the write fails.

    Raises OSError or SafetensorError if it cannot be written.
    """
    target = folder / f"{state.update:08d}"
    while target.exists():  # the same update, before its validation: kept until this one is complete
        target = target.with_name(target.name + "+")
    with replacing_folder(target) as temporary:
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
        save_file(weights, temporary / "trained.safetensors")
        save_file(_moments(trained, optimizer), temporary / "optimizer.safetensors")
        save_file(_random_state(), temporary / "random.safetensors")
        tensors = {f"weights.{name}": value for name, value in best.weights.items()}
        if best.outputs is not None:
            tensors["outputs"] = best.outputs
        save_file(tensors or {"none": torch.zeros(1)}, temporary / "best.safetensors")
        (temporary / "state.json").write_text(json.dumps(dataclasses.asdict(state)), "utf-8")
        sums = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / "checksums.json").write_text(json.dumps(sums), "utf-8")
        for file in temporary.iterdir():
            flush_file(file)
        flush_folder(temporary)
    flush_folder(folder)
    for old in _checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(
    folder: Path, fingerprint: str, trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[State, Best] | None:
    """Restore weights, optimiser and random state from the latest intact checkpoint; return None if there is none.

    Raises ConfigError if the checkpoint belongs to other data or settings.
    """
    for path in reversed(_checkpoints(folder)):
        try:
            sums = json.loads((path / "checksums.json").read_text("utf-8"))
            damaged = [name for name, value in sums.items() if sha256(path / name) != value]
            state = State(**json.loads((path / "state.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            say(f"checkpoint {path} is damaged ({error}); trying the one before")
            continue
        if damaged:
            say(f"checkpoint {path} is damaged ({', '.join(damaged)}); trying the one before")
            continue
        if state.fingerprint != fingerprint:
            raise ConfigError(
                f"--resume: {path} was trained on other data or settings; bring them back, or start a new run"
            )
        with torch.no_grad():
            for name, value in load_file(path / "trained.safetensors").items():
                trained[name].copy_(value)
        _restore_moments(trained, optimizer, load_file(path / "optimizer.safetensors"))
        _restore_random_state(load_file(path / "random.safetensors"))
        tensors = load_file(path / "best.safetensors")
        weights = {name.removeprefix("weights."): v for name, v in tensors.items() if name.startswith("weights.")}
        return state, Best(weights, tensors.get("outputs"))
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.rstrip("+").isdigit()) if folder.is_dir() else []


def _moments(trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments = {
        f"{key}.{name}": value.detach().cpu().contiguous()
        for name, parameter in trained.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return moments or {"none": torch.zeros(1)}


def _restore_moments(
    trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]
) -> None:
    optimizer.state.clear()
    for dotted, value in moments.items():
        key, _, name = dotted.partition(".")
        if name in trained:
            parameter = trained[name]
            device = "cpu" if key == "step" else parameter.device
            optimizer.state[parameter][key] = value.to(device)


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
