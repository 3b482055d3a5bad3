"""The training loop: updates from the plan, validations at fixed updates, checkpoints, early stopping, a clean stop.

An update's gradient is that of  sum over its examples of loss / their count,  added up over micro-batches, so the cut
into micro-batches does not change it. Accelerate's own gradient accumulation stays 1 and the loader is ours.
Learning rate and data order are functions of the update number alone; a resumed run needs nothing else.
"""

import hashlib
import json
import math
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.backends.torch_backend import run_network
from distilora.checkpoint import Best, State, load_checkpoint, save_checkpoint
from distilora.config import Precision, TrainingConfig
from distilora.encode import Network
from distilora.errors import ConfigError, Interrupted
from distilora.memory import Meter
from distilora.methods import parameter_groups
from distilora.plan import Update, plan
from distilora.predict import run_rows
from distilora.progress import Progress, say
from distilora.rows import Rows


@dataclass(frozen=True)
class Labelled:
    """Rows and the target of each of their G examples."""

    rows: Rows
    targets: Sequence[Any]


@dataclass(frozen=True)
class Fitted:
    """What training leaves, with the best weights in the network."""

    outputs: NDArray[np.float32]  # of the validation examples, by the best weights
    state: State
    updates: int  # planned
    stopped_early: bool
    memory: dict[str, float]  # of one update, MB (memory.Meter)


class _NetworkBackend:
    """The network in training as a backend, so that validation runs as prediction does."""

    def __init__(self, network: Network, precision: Precision, token_budget: int, stop: "_Stop") -> None:
        self.network, self.precision, self.token_budget, self.stop = network, precision, token_budget, stop

    def run(self, rows: Rows) -> NDArray[np.float32]:
        if self.stop.signal:
            raise _Stopped
        return run_network(self.network, rows, self.precision)


class _Stopped(Exception):
    pass


class _Stop:
    """Notes the first SIGINT or SIGTERM; a second SIGINT interrupts at once."""

    signal = 0

    def note(self, number: int, frame: Any) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        say("\nstopping after this step; a checkpoint will be written")


def fit(
    network: Network,
    train: Labelled,
    validation: Labelled,
    config: TrainingConfig,
    run: Path,
    *,
    budget: int,
    resume: bool,
    base: str = "",
) -> Fitted:
    """Trains the network; `config` is resolved (no nulls for device, precision, token budget, learning rates).

    Args:
        run: the run's folder; checkpoints and curves go below it.
        budget: padded tokens per forward pass of validation.
        resume: go on from the latest checkpoint, if there is one.
        base: what the network was made of (the encoder's checksum, the method); a checkpoint made of other is refused.

    Raises Interrupted after SIGINT or SIGTERM, with the command that resumes; ConfigError if the loss is not finite.
    """
    from accelerate import Accelerator
    from accelerate.utils import LoggerType

    accelerator = Accelerator(
        mixed_precision="no", cpu=config.device == "cpu", project_dir=run,
        log_with=LoggerType(config.tracker) if config.tracker != "none" else None,
    )  # fmt: skip
    trained = network.trained()
    optimizer = torch.optim.AdamW(parameter_groups(trained, network.architecture, config), lr=0.0)
    network, optimizer = accelerator.prepare(network, optimizer)
    assert config.token_budget is not None
    assert config.learning_rate is not None
    peak = config.learning_rate
    per_epoch = math.ceil(train.rows.groups / config.update_size)
    total = per_epoch * config.epochs
    validate_at = {round(total * (i + 1) / config.validations) for i in range(config.validations)} - {0}
    state, best = State(_fingerprint(train, validation, config, trained, base)), Best()
    if resume:
        found = load_checkpoint(run / "checkpoints", state.fingerprint, trained, optimizer)
        state, best = found or (state, best)
        say(f"resuming after update {state.update:,} of {total:,}" if found else "no whole checkpoint: starting anew")
    if config.tracker != "none":
        _start_tracker(accelerator, config, state.update)
    meter = Meter(network)

    def checkpoint() -> None:
        save_checkpoint(run / "checkpoints", state, trained, optimizer, best)

    planned: tuple[int, list[Update]] = (-1, [])
    resumed_seconds, started = state.seconds, time.monotonic()
    with _noting_signals() as stop, Progress("training", train.rows.groups * config.epochs,
                                             done=_seen(state.update, per_epoch, train, config)) as bar:  # fmt: skip
        while True:
            state.seconds = resumed_seconds + time.monotonic() - started
            if state.update in validate_at and state.validated != state.update:
                try:
                    loss, outputs = _validate(network, validation, config.precision, budget, stop)
                except _Stopped:
                    checkpoint()
                    break
                _judge(state, best, loss, outputs, trained)
                accelerator.log({"validation/loss": loss}, step=state.update)
                checkpoint()
            if state.update == total or _patience_spent(state, config):
                break
            if stop.signal:
                checkpoint()
                break

            epoch, number = divmod(state.update, per_epoch)
            if planned[0] != epoch:
                planned = (
                    epoch,
                    plan(train.rows.group_lengths, config.token_budget, config.update_size, config.seed, epoch),
                )
            rate = learning_rate(state.update, total, config)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["peak"]
            loss, norm = _step(network, train, planned[1][number], config, accelerator, optimizer, meter)
            state.update += 1
            state.history.append({"update": state.update, "loss": loss, "rate": rate * peak, "norm": norm})
            recent = [row["loss"] for row in state.history[-20:] if "loss" in row]
            bar.add(sum(map(len, planned[1][number])), loss=float(np.mean(recent)))
            accelerator.log({"train/loss": loss, "train/rate": rate * peak}, step=state.update)
            if state.update % config.checkpoint_every == 0 and state.update not in validate_at:
                checkpoint()

    accelerator.end_training()
    if stop.signal:
        raise Interrupted(
            f"stopped after update {state.update:,} of {total:,}; continue with: distilora train --resume {shlex.quote(str(run))}",
            stop.signal,
        )
    assert best.outputs is not None
    with torch.no_grad():
        for name, value in best.weights.items():
            trained[name].copy_(value)
    return Fitted(best.outputs.numpy(), state, total, state.update < total, meter.found)


def learning_rate(update: int, total: int, config: TrainingConfig) -> float:
    """Share of the peak rate at an update: linear rise over the warm-up, then to 0 by the schedule."""
    warmup = max(round(config.warmup * total), 1)
    if update < warmup:
        return (update + 1) / warmup
    left = (total - update) / max(total - warmup, 1)
    if config.schedule == "constant":
        return 1.0
    return left if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))


def _step(
    network: Network,
    train: Labelled,
    update: Update,
    config: TrainingConfig,
    accelerator: Any,
    optimizer: Any,
    meter: Meter,
) -> tuple[float, float]:
    """One update of the weights: its mean loss and the norm of its gradient."""
    count = sum(map(len, update))
    total = 0.0
    network.train()
    for batch in update:
        with meter.forward(), torch.autocast(network.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            outputs = network(train.rows.take(batch))
        loss = network.task.loss(outputs.float(), [train.targets[i] for i in batch]).sum() / count
        accelerator.backward(loss)
        total += float(loss.detach())
    if not math.isfinite(total):
        raise ConfigError("training.learning_rate: the loss is not finite; lower it, or set training.precision to fp32")
    norm = accelerator.clip_grad_norm_(network.trained().values(), config.max_grad_norm)
    optimizer.step()
    meter.update(network.trained().values(), optimizer)
    optimizer.zero_grad()
    return total, float(norm)


def _validate(
    network: Network, validation: Labelled, precision: Precision, budget: int, stop: _Stop
) -> tuple[float, NDArray[np.float32]]:
    network.eval()
    outputs = run_rows(validation.rows, _NetworkBackend(network, precision, budget, stop), label="validation")
    return float(network.task.loss(torch.from_numpy(outputs), validation.targets).mean()), outputs


def _judge(state: State, best: Best, loss: float, outputs: NDArray[np.float32], trained: dict[str, Any]) -> None:
    state.validated = state.update
    state.history.append({"update": state.update, "validation_loss": loss})
    better = loss < state.best_loss
    say(f"validation after update {state.update:,}: loss {loss:.4f}" + (" (best so far)" if better else ""))
    if not better:
        state.stale += 1
        return
    state.best_loss, state.best_update, state.stale = loss, state.update, 0
    best.weights = {name: parameter.detach().cpu().clone().contiguous() for name, parameter in trained.items()}
    best.outputs = torch.from_numpy(outputs)


def _patience_spent(state: State, config: TrainingConfig) -> bool:
    return config.patience is not None and state.stale >= config.patience


def _start_tracker(accelerator: Any, config: TrainingConfig, done: int) -> None:
    accelerator.init_trackers(
        "events",
        config={k: v for k, v in vars(config).items() if v is not None},
        init_kwargs={"tensorboard": {"purge_step": done + 1}},  # hides what a killed run logged beyond
    )


def _fingerprint(
    train: Labelled, validation: Labelled, config: TrainingConfig, trained: dict[str, torch.nn.Parameter], base: str
) -> str:
    digest = hashlib.sha256(base.encode())
    for part in (train, validation):
        digest.update(part.rows.ids.tobytes() + part.rows.offsets.tobytes() + repr(list(part.targets)).encode())
    kept = {k: v for k, v in vars(config).items() if k not in ("tracker", "checkpoint_every", "device")}
    shapes = {name: list(parameter.shape) for name, parameter in trained.items()}
    digest.update(json.dumps([kept, shapes], sort_keys=True).encode())
    return digest.hexdigest()


def _seen(update: int, per_epoch: int, train: Labelled, config: TrainingConfig) -> int:
    epochs, rest = divmod(update, per_epoch)
    return epochs * train.rows.groups + min(rest * config.update_size, train.rows.groups)


@contextmanager
def _noting_signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop.note)
    except ValueError:  # not the main thread: signals are the caller's business
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
