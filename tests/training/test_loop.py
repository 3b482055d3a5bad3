"""Training: the rate, the losses, the best weights, the early stop; stopped and resumed, it is the same run."""

import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_config
from support.training import CONFIG, TASK, labelled

from distilora.config.schema import AdapterConfig, TrainingConfig
from distilora.errors import ConfigError, Interrupted
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network, run_network
from distilora.runs.run import train
from distilora.tasks.classification import Classification
from distilora.training.loop import Fitted, fit
from distilora.training.optimizer import learning_rate
from distilora.training.setup import Labelled

LOSSES = [0.694896, 0.688948, 0.702705, 0.691512, 0.683778, 0.679091, 0.685128, 0.633885, 0.643342, 0.6463]
VALIDATION = [0.692461, 0.694236]


def build(encoder: Path) -> Network:
    tiny_encoder = find_encoder(str(encoder))
    return new_network(
        tiny_encoder, TASK, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.0
    )


def run(
    network: Network, folder: Path, *, validation: Labelled | None = None,
    resume: bool = False, **changes: object,
) -> Fitted:  # fmt: skip
    config = dataclasses.replace(CONFIG, **changes)
    return fit(network, labelled(80, 0), validation or labelled(20, 1), config, folder, budget=2048, resume=resume)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 7 / 8, 0.5, 1 / 8]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 + 0.5 * np.cos(np.pi / 8), 0.5, 0.5 - 0.5 * np.cos(np.pi / 8)]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rate(schedule: str, expected: list[float]) -> None:
    config = TrainingConfig(warmup=0.2, schedule=schedule)
    rates = [learning_rate(update, 10, config) for update in range(10)]
    assert [rates[i] for i in (0, 1, 2, 3, 6, 9)] == pytest.approx(expected)
    assert learning_rate(10, 10, config) == pytest.approx(1.0 if schedule == "constant" else 0.0)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_learning_rate_at_the_ends_of_warmup(warmup: float) -> None:
    rates = [learning_rate(update, 4, TrainingConfig(warmup=warmup)) for update in range(4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0] if warmup else [1.0, 1.0, 2 / 3, 1 / 3])


def test_the_first_updates(encoder: Path, tmp_path: Path) -> None:
    history = run(build(encoder), tmp_path).state.history
    losses = [row["loss"] for row in history if "loss" in row]
    validation = [(row["update"], row["validation_loss"]) for row in history if "validation_loss" in row]
    assert losses == pytest.approx(LOSSES, rel=1e-3)
    assert [update for update, _ in validation] == [5, 10]
    assert [loss for _, loss in validation] == pytest.approx(VALIDATION, rel=1e-3)
    assert [row["rate"] for row in history if "rate" in row][:3] == pytest.approx([0.01, 0.01, 0.01 * 8 / 9])


def test_the_token_budget_is_no_matter(encoder: Path, tmp_path: Path) -> None:
    first = [
        run(build(encoder), tmp_path / str(budget), epochs=1, token_budget=budget).state.history[0]
        for budget in (64, 4096)
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-5)
    assert first[0]["norm"] > 0


def test_what_is_frozen_stays(encoder: Path, tmp_path: Path) -> None:
    network = build(encoder)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    run(network, tmp_path, epochs=1)
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(network.trained())


def test_the_head_has_its_own_rate(encoder: Path, tmp_path: Path) -> None:
    network = build(encoder)
    before = {name: p.detach().clone() for name, p in network.trained().items()}
    # One update of AdamW without decay moves a weight by its group's rate at most, and by next to it where B is 0.
    run(network, tmp_path, epochs=1, update_size=80, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.0)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in network.trained().items()}
    assert max(value for name, value in moved.items() if "lora_" in name) == pytest.approx(1e-3, rel=0.05)
    assert max(value for name, value in moved.items() if "lora_" not in name) == pytest.approx(1e-2, rel=0.05)


@pytest.mark.parametrize(("patience", "updates"), [(1, 10), (2, 15), (None, 25)])
def test_early_stopping_keeps_the_best_weights(
    encoder: Path, tmp_path: Path, patience: int | None, updates: int
) -> None:
    network = build(encoder)
    against = labelled(20, 1, flipped=True)  # what is learnt makes it worse from the first validation on
    fitted = run(network, tmp_path, validation=against, epochs=5, validations=5, patience=patience)
    assert fitted.state.update == updates
    assert fitted.stopped_early == (patience is not None)
    assert fitted.state.best_update == 5
    assert fitted.state.best_loss == min(r["validation_loss"] for r in fitted.state.history if "validation_loss" in r)
    np.testing.assert_allclose(run_network(network.eval(), against.rows, "fp32"), fitted.outputs, rtol=0, atol=1e-5)


class Scripted(Classification):
    """Says in validation what it is told to."""

    script: Iterator[float]

    def loss(self, outputs: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        if outputs.requires_grad:
            return super().loss(outputs, targets)
        return torch.full((len(targets),), next(self.script))


def test_a_better_validation_gives_new_patience(encoder: Path, tmp_path: Path) -> None:
    network = build(encoder)
    network.task = Scripted(TASK.labels, "text", "label")
    network.task.script = iter([5.0, 6.0, 4.0, 4.5, 4.0, 1.0])
    fitted = run(network, tmp_path, epochs=6, validations=6, patience=2)
    assert (fitted.state.update, fitted.state.best_update, fitted.state.best_loss) == (25, 15, 4.0)


def test_a_loss_that_is_not_finite_is_said(encoder: Path, tmp_path: Path) -> None:
    network = build(encoder)
    with torch.no_grad():
        next(p for name, p in network.trained().items() if "classifier" in name).fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"training\.learning_rate: the loss is not finite"):
        run(network, tmp_path)


@pytest.mark.parametrize(
    ("at", "what", "kept"),
    [(9, r"validation loss is not finite after update 10", 9), (4, "validation loss", 4), (2, "loss is", 3)],
)
def test_weights_that_explode_are_said(
    encoder: Path, tmp_path: Path, at: int, what: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = learning_rate
    monkeypatch.setattr("distilora.training.loop.learning_rate", lambda n, *more: 1e36 if n == at else usual(n, *more))
    with pytest.raises(
        ConfigError, match=rf"^training\.learning_rate: the {what}.*; lower it, or set .* --overwrite"
    ) as error:
        run(build(encoder), tmp_path, checkpoint_every=1)
    assert "\n" not in str(error.value)
    left = sorted(int(path.name.rstrip("+")) for path in (tmp_path / "checkpoints").iterdir())
    assert left[-1] == kept  # none after what was found out; weights themselves may be huge and finite


def test_a_gradient_that_is_not_finite_is_said(encoder: Path, tmp_path: Path) -> None:
    network = build(encoder)
    weight = next(p for name, p in network.trained().items() if "classifier" in name)
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ConfigError, match=r"training\.learning_rate: the gradient is not finite"):
        run(network, tmp_path)
    assert torch.equal(weight, before)


def state_of_accelerate() -> list[dict[str, object]]:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    return [dict(state._shared_state) for state in (AcceleratorState, PartialState, GradientState)]


def test_an_accelerator_of_the_caller_s_stays_as_it_was(encoder: Path, tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    before = state_of_accelerate()
    try:
        AcceleratorState._reset_state(reset_partial_state=True)
        mine = Accelerator(mixed_precision="bf16", cpu=True)
        during = state_of_accelerate()
        fitted = run(build(encoder), tmp_path / "beside", epochs=1)
        assert state_of_accelerate() == during
        assert mine.mixed_precision == "bf16"
        AcceleratorState._reset_state(reset_partial_state=True)
        alone = run(build(encoder), tmp_path / "alone", epochs=1)
        assert state_of_accelerate()[:2] == [{}, {}]  # nothing of ours stays
        np.testing.assert_array_equal(fitted.outputs, alone.outputs)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        for state, expected in zip((AcceleratorState, PartialState, GradientState), before, strict=True):
            state._shared_state.clear()
            state._shared_state.update(expected)


def test_random_numbers_of_the_caller_go_on(encoder: Path, tmp_path: Path) -> None:
    import random

    torch.manual_seed(11)
    expected = torch.rand(3), np.random.default_rng(11).random(), random.Random(11).random()
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    states = np.random.get_state()[1].tolist(), random.getstate()
    network = build(encoder)
    run(network, tmp_path / "one", epochs=1, dropout=0.1)
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


def test_dropout_is_drawn_from_the_seed_alone(encoder: Path, tmp_path: Path) -> None:
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        tiny_encoder = find_encoder(str(encoder))
        network = new_network(
            tiny_encoder, TASK, AdapterConfig(r=4), precision="fp32", device=torch.device("cpu"), dropout=0.5
        )
        torch.manual_seed(number)  # what the caller drew before is no matter
        fitted = run(network, tmp_path / str(number), epochs=1, seed=seed)
        losses.append([row["loss"] for row in fitted.state.history if "loss" in row])
    assert losses[0] == losses[1] != losses[2]


def test_a_tracker_that_is_not_installed(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", reviews, encoder, training__tracker="trackio")
    with pytest.raises(ConfigError, match=r"training\.tracker: trackio is not installed; pip install trackio"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_is_the_same(encoder: Path, tmp_path: Path, signal_number: int) -> None:
    alone = build(encoder)
    expected = run(alone, tmp_path / "alone", epochs=3)
    stopped = build(encoder)
    steps = iter(range(14))

    def count(*_: object) -> None:
        if next(steps, None) == 12:  # in the seventh update, of two micro-batches each
            os.kill(os.getpid(), signal_number)

    before = signal.getsignal(signal_number)
    handle = stopped.register_forward_hook(count)
    with pytest.raises(Interrupted, match="after update 7 of 15; continue with: distilora train --resume") as error:
        run(stopped, tmp_path / "stopped", epochs=3)
    handle.remove()
    assert error.value.exit_code == 128 + signal_number
    assert signal.getsignal(signal_number) is before

    resumed = build(encoder)
    fitted = run(resumed, tmp_path / "stopped", epochs=3, resume=True)
    clocks = {"seconds": 0.0, "updating": 0.0}
    assert dataclasses.replace(fitted.state, **clocks) == dataclasses.replace(expected.state, **clocks)
    assert np.array_equal(fitted.outputs, expected.outputs)
    for name, parameter in alone.trained().items():
        assert torch.equal(resumed.trained()[name], parameter)


def test_resuming_with_other_settings_is_refused(encoder: Path, tmp_path: Path) -> None:
    run(build(encoder), tmp_path, epochs=1)
    with pytest.raises(ConfigError, match="other data or settings"):
        run(build(encoder), tmp_path, epochs=2, resume=True)
