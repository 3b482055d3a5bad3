"""What a run leaves the same however often it was stopped, and what tests of stopping share."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilora.artifact.format import read_artifact
from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig
from distilora.export.roundtrip import compare
from distilora.files.atomic import sha256

ADAPTER = "model/adapter/adapter_model.safetensors"


def told(folder: Path) -> dict[str, Any]:
    """The figures and the adapter of a finished run, without what clocks and the machine's memory said."""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    comparable = {name: metrics[name] for name in ("data", "parameters", "evaluations", "notes")}
    comparable["training"] = {
        k: v for k, v in metrics["training"].items() if k not in ("seconds", "updating_seconds", "examples_per_s")
    }
    comparable["evaluations"] = without_times(comparable["evaluations"])
    return {**comparable, "adapter": sha256(folder / ADAPTER)}


def without_times(evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evaluations without the seconds that n-gram baselines took."""
    return [
        {
            **e,
            **{
                name: [{k: v for k, v in row.items() if k != "seconds"} for row in e[name]]
                for name in ("ngram_baselines",)
                if name in e
            },
        }
        for e in evaluations
    ]


def write_recipe(path: Path, config: RunConfig) -> str:
    path.write_text(yaml.safe_dump(to_tree(config)), "utf-8")
    return str(path)


def curves(folder: Path) -> dict[str, list[int]]:
    """The updates that TensorBoard shows a point of, by curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the round trip made in this process: the same comparison, seconds sooner."""
    monkeypatch.setattr(
        "distilora.export.save.verify", lambda folder, task, device: compare(read_artifact(folder), device)
    )


def temporary(folder: Path) -> list[str]:
    """Names of what only a run at work has in its folder."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix == ".tmp" or path.name == ".lock")


def fill(disk: Path, left: int = 0) -> None:
    """A file `fill` that takes all the room but `left` blocks of 4 kB."""
    file = disk / "fill"
    with open(file, "ab", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))
    os.truncate(file, file.stat().st_size - left * 4096)
