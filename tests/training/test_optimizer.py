"""Muon: PyTorch's own on the matrices of the blocks, AdamW's on the rest; resumed bit for bit; for low-rank updates alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.fresh import verify_here
from support.stopping import told
from support.tiny import tiny_config

from distilora.config.schema import RunConfig, TrainingConfig
from distilora.errors import ConfigError, Interrupted
from distilora.export import save as saving
from distilora.model.encoders.families import ARCHITECTURES
from distilora.runs.resolve import resolve
from distilora.runs.run import Run, train
from distilora.training import loop
from distilora.training.optimizer import Muon, new_optimizer, orthogonal, parameter_groups

FAMILY = ARCHITECTURES["distilbert"]
BLOCK = "base_model.model.distilbert.transformer.layer.0"


@pytest.fixture
def trained() -> dict[str, torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    shapes = {
        f"{BLOCK}.ffn.lin1.lora_A.default.weight": (8, 32),
        f"{BLOCK}.ffn.lin1.lora_B.default.weight": (64, 8),
        f"{BLOCK}.ffn.lin1.bias": (64,),
        "base_model.model.classifier.modules_to_save.default.weight": (2, 32),
    }
    return {name: torch.nn.Parameter(torch.randn(shape, generator=rng)) for name, shape in shapes.items()}


def config(**changes: object) -> TrainingConfig:
    return TrainingConfig(optimizer="muon", learning_rate=0.01, head_learning_rate=0.02, weight_decay=0.1, **changes)


@pytest.mark.parametrize("shape", [(8, 32), (64, 8), (5, 5)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-4
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.shape[0] == min(shape)
    assert values.min() > 0.6
    assert values.max() < 1.25
    assert torch.isfinite(orthogonal(torch.zeros(shape))).all()


def test_matrices_of_the_blocks_are_muons(trained: dict[str, torch.nn.Parameter]) -> None:
    groups = parameter_groups(trained, FAMILY, config())
    muon = [p for group in groups if group.get("muon") for p in group["params"]]
    assert [p is q for p, q in zip(muon, trained.values(), strict=False)] == [True, True]
    assert not any(
        group.get("muon") for group in parameter_groups(trained, FAMILY, replace(config(), optimizer="adamw"))
    )


def test_it_steps_as_pytorchs_own(trained: dict[str, torch.nn.Parameter]) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.fail("the tested PyTorch has torch.optim.Muon")
    theirs = {name: torch.nn.Parameter(p.detach().clone()) for name, p in trained.items()}
    ours = new_optimizer(trained, FAMILY, config())
    assert isinstance(ours, Muon)
    for group in ours.param_groups:
        group["lr"] = group["peak"]
    low_rank, rest = list(theirs.values())[:2], list(theirs.values())[2:]
    others = [
        torch.optim.Muon(low_rank, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original"),
        torch.optim.AdamW([{"params": rest[:1], "lr": 0.01, "weight_decay": 0.0}, {"params": rest[1:], "lr": 0.02}],
                          weight_decay=0.1),
    ]  # fmt: skip
    before = {name: p.detach().clone() for name, p in trained.items()}
    for step in range(4):
        rng = torch.Generator().manual_seed(step)
        for p, q in zip(trained.values(), theirs.values(), strict=True):
            p.grad = torch.randn(p.shape, generator=rng)
            q.grad = p.grad.clone()
        ours.step()
        for optimizer in others:
            optimizer.step()
    for (name, p), q in zip(trained.items(), theirs.values(), strict=True):
        moved = (q - before[name]).norm()
        assert moved > 0
        assert (p - q).norm() < (0.02 if "lora" in name else 1e-5) * moved  # theirs iterates in bf16


def test_a_run_learns_and_resumes(
    tmp_path: Path, encoder: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "verify", verify_here)
    changes = {"training__optimizer": "muon", "training__learning_rate": 0.01, "training__head_learning_rate": 0.01}
    run = tiny_config(tmp_path / "run", reviews, encoder, **changes)
    whole = replace(run, output=str(tmp_path / "whole"))
    metrics = train(whole)
    assert metrics["evaluations"][0]["metrics"]["auroc"]["value"] > 0.8
    make_update, calls = loop.make_update, []

    def stops(*arguments, **named):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return make_update(*arguments, **named)

    run = replace(run, training=replace(run.training, checkpoint_every=16))
    monkeypatch.setattr(loop, "make_update", stops)
    with pytest.raises(Interrupted):
        train(run)
    train(run, resume=True)
    assert told(Path(run.output)) == told(Path(whole.output))


def test_what_it_is_not_for(tmp_path: Path, encoder: Path, reviews: Path) -> None:
    run: RunConfig = tiny_config(
        tmp_path / "run", reviews, encoder, training__optimizer="muon", training__learning_rate=None
    )
    assert resolve(run).training.learning_rate == 2.5e-3
    with pytest.raises(ConfigError, match=r"training\.optimizer: muon given, .* method full has none of; give adamw"):
        Run(replace(run, adapter=replace(run.adapter, method="full")))
