"""Two processes train the network that one would have trained."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.tiny import tiny_config

from distilora.batching.batches import plan_batches
from distilora.config.parse import to_tree
from distilora.errors import ConfigError
from distilora.runs.run import train
from distilora.training.processes import Processes, from_environment

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "distilora"]


def shared(output: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`distilora WORDS` in two processes over gloo."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | settings
    done = subprocess.run(
        [*LAUNCH, *words], capture_output=True, text=True, timeout=240, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    output.with_suffix(".log").write_text(done.stdout + done.stderr, "utf-8")
    return done


def history(run: Path) -> list[dict[str, float]]:
    return json.loads((run / "metrics.json").read_text("utf-8"))["training"]["history"]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [pytest.param(None, id="uncached"), pytest.param(1, id="cached")])
def test_two_processes_are_one(blocks: int | None, encoder: Path, reviews: Path, tmp_path: Path) -> None:
    changes = {"training__epochs": 2, "training__token_budget": 64, "adapter__last_blocks": blocks}
    alone = tiny_config(tmp_path / "alone", reviews, encoder, **changes)
    train(alone)
    config = tiny_config(tmp_path / "both", reviews, encoder, **changes)
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(to_tree(config)), "utf-8")
    done = shared(tmp_path / "both", "train", str(tmp_path / "both.yaml"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("encoder: ") == 1  # the first process alone speaks
    one, two = history(tmp_path / "alone"), history(tmp_path / "both")
    assert len(one) == len(two) > 20
    for before, after in zip(one, two, strict=True):
        assert before == pytest.approx(after, rel=1e-3, abs=1e-5)
    assert abs(one[0]["loss"] - one[-1].get("loss", 0)) > 0.01
    weights = [load_file(tmp_path / name / "model/adapter/adapter_model.safetensors") for name in ("alone", "both")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=1e-4)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text("utf-8")) for name in ("alone", "both")]
    assert [m["training"]["processes"] for m in metrics] == [1, 2]
    sizes = [m["training"]["prefix_cache"]["bytes"] for m in metrics]
    assert (sizes == [0, 0]) if blocks is None else (0.35 * sizes[0] < sizes[1] < 0.65 * sizes[0])  # its own share
    accuracy = [m["evaluations"][0]["metrics"]["accuracy"]["value"] for m in metrics]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.04)


@pytest.mark.slow
def test_an_error_of_all_is_one_line_each(encoder: Path, tmp_path: Path) -> None:
    done = shared(tmp_path / "run", "train", "--output", str(tmp_path / "run"), "--data.path", str(tmp_path / "no.csv"),
                  "--encoder.name", str(encoder), "--data.max_length", "64")  # fmt: skip
    assert done.returncode != 0
    assert "no.csv" in done.stderr
    assert not (tmp_path / "run").exists()


def test_shares_are_a_partition() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 101)
    for count in (1, 2, 3):
        for owned in (False, True):
            processes = [Processes(index, count) for index in range(count)]
            for update in plan_batches(lengths, 300 * count, 16, seed=1):
                owner = processes[0].owners(len(lengths)) if owned else None
                shares = [r.share(update, lengths, 300, owner) for r in processes]
                shared = np.concatenate([batch for share in shares for batch in share])
                assert sorted(shared) == sorted(np.concatenate(update))
                for rank, share in zip(processes, shares, strict=True):
                    for batch in share:
                        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= 300
                        assert owner is None or set(owner[batch]) == {rank.index}
                if not owned:  # as many examples each, up to one of each micro-batch
                    sizes = [sum(map(len, share)) for share in shares]
                    assert max(sizes) - min(sizes) <= len(update)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("0", "many"), ("0", "0")])
def test_an_environment_that_makes_no_sense(rank: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match="start with torchrun or accelerate launch"):
        from_environment()


@pytest.mark.slow
def test_stopped_and_gone_on_with(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    changes = {"training__epochs": 40, "training__checkpoint_every": 5}
    config = tiny_config(tmp_path / "run", reviews, encoder, **changes)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_tree(config)), "utf-8")
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*LAUNCH, "train", str(tmp_path / "run.yaml")], stderr=subprocess.PIPE, text=True, env=environment
    )
    while not any((tmp_path / "run" / "checkpoints").glob("000000[0-9][05]")):
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGTERM)  # the launcher hands it on
    said = process.communicate(timeout=120)[1]
    assert "continue with: distilora train --resume" in said
    assert not (tmp_path / "run" / "metrics.json").exists()
    done = shared(tmp_path / "run", "train", "--resume", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "resuming after update" in done.stderr
    assert len([row for row in history(tmp_path / "run") if "loss" in row]) == json.loads(
        (tmp_path / "run" / "metrics.json").read_text("utf-8")
    )["training"]["planned_updates"]  # fmt: skip
