"""Trains a network: planned updates, validations at fixed updates, checkpoints, early stopping and a clean stop.

Learning rate and data order are functions of the update number alone; a resumed run needs nothing else. Accelerate's own
gradient accumulation stays at 1, and the batches are ours (training/step.py).
"""

import hashlib
import json
import math
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.batching.batches import Update, plan_batches
from distilora.config.schema import TrainingConfig
from distilora.errors import Interrupted
from distilora.model.network import Network
from distilora.model.seeds import seeded
from distilora.progress import Progress, say
from distilora.signals import noting_signals
from distilora.training.accelerating import accelerating
from distilora.training.checkpoint import Best, State, load_checkpoint, save_checkpoint
from distilora.training.imbalance import Balance
from distilora.training.memory import Meter
from distilora.training.optimizer import learning_rate, new_optimizer
from distilora.training.prefix_cache import PrefixCaches
from distilora.training.processes import Processes
from distilora.training.setup import Labelled, Setup
from distilora.training.step import make_update, not_finite
from distilora.training.validation import validate

CACHE = "cache"  # in the run's folder, while it trains


@dataclass(frozen=True)
class Fitted:
    """Result of training; the network holds the best weights."""

    outputs: NDArray[np.float32]  # of the validation examples, with the best weights
    state: State
    updates: int  # planned
    seen: int  # examples, once per epoch
    stopped_early: bool
    memory: dict[str, float]  # held during one update, MB (memory.Meter)
    processes: int  # number that shared the work
    prefix: dict[str, Any]  # prefix cache: blocks below the cut, bytes of this process's files (0: none)


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
    processes: Processes | None = None,
    checkpoints: str = "checkpoints",
) -> Fitted:
    """Train the network; `config` is resolved: device, precision, token budget and learning rates are set.

    Args:
        run: the run's folder, which receives checkpoints and curves.
        budget: padded tokens per forward pass of validation.
        resume: continue from the latest checkpoint, if there is one.
        base: identity of the network (the encoder's checksum, the method); a checkpoint of another network is refused.
        processes: those that share the work; None: this one alone.
        checkpoints: the folder in `run` to keep them in.

    Raises Interrupted after SIGINT or SIGTERM, with the command that resumes; ConfigError if the loss, the gradient or the
    weights are not finite. In every case the cache is deleted, trackers are closed and the caller's random state is restored.
    """
    with _set_up(network, train, validation, config, run, budget, processes or Processes(), checkpoints) as setup:
        state, best = State(_fingerprint(setup, base)), Best()
        schedule = Schedule(train.rows.groups, config, train.balance)
        if resume:
            checkpoint = load_checkpoint(setup.checkpoints, state.fingerprint, setup.trained, setup.optimizer)
            state, best = checkpoint or (state, best)
            resuming = f"resuming after update {state.update:,} of {schedule.updates:,}"
            say(resuming if checkpoint else "no intact checkpoint: starting from the beginning")
        if config.tracker != "none" and setup.processes.first:
            _start_tracker(setup.accelerator, config, state.update)
        _train(setup, state, best, schedule)
        assert best.outputs is not None
        with torch.no_grad():
            for name, value in best.weights.items():
                setup.trained[name].copy_(value)
        return Fitted(
            outputs=best.outputs.numpy(),
            state=state,
            updates=schedule.updates,
            seen=schedule.seen(state.update),
            stopped_early=state.update < schedule.updates,
            memory=setup.meter.figures,
            processes=setup.processes.count,
            prefix=setup.caches.summary,
        )


class Schedule:
    """Schedule of a run: each update's examples, and when to validate, by the update number alone."""

    def __init__(self, examples: int, config: TrainingConfig, balance: Balance | None = None) -> None:
        self.examples, self.config, self.balance = examples, config, balance or Balance()
        self.per_epoch = math.ceil(examples / config.update_size)
        self.updates = self.per_epoch * config.epochs
        self.validate_at = {round(self.updates * (i + 1) / config.validations) for i in range(config.validations)} - {0}
        self._epoch, self._planned = -1, list[Update]()

    def update(self, number: int, lengths: NDArray[np.int64], token_budget: int) -> Update:
        """Return the micro-batches of update `number`, as example indices; every epoch has its own order."""
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            size, seed, drawn = self.config.update_size, self.config.seed, self.balance.order(self.config.seed, epoch)
            if drawn is None:
                self._planned = plan_batches(lengths, token_budget, size, seed, epoch)
            else:
                planned = plan_batches(lengths[drawn], token_budget, size, seed, epoch)
                self._planned = [[drawn[batch] for batch in update] for update in planned]
            self._epoch = epoch
        return self._planned[position]

    def seen(self, number: int) -> int:
        """Count the examples seen in the first `number` updates, an example once per epoch."""
        epochs, rest = divmod(number, self.per_epoch)
        return epochs * self.examples + min(rest * self.config.update_size, self.examples)


def _train(setup: Setup, state: State, best: Best, schedule: Schedule) -> None:
    """Update, validate and write checkpoints until the schedule or the patience runs out. Raises Interrupted."""
    config, lengths = setup.config, setup.train.rows.group_lengths
    assert config.learning_rate is not None
    token_budget = setup.token_budget * setup.processes.count  # of a micro-batch, which the processes share
    seconds_before, started = state.seconds, time.monotonic()
    examples = setup.train.rows.groups * config.epochs
    bar = Progress("training", examples, initial=schedule.seen(state.update))
    with noting_signals() as stop, bar:
        # states below the lowest trained block never change: compute them once
        state.updating += setup.caches.fill(stop)
        stop.agreed = setup.processes.any(bool(stop.signal), setup.network.device)
        while True:
            state.seconds = seconds_before + time.monotonic() - started
            if stop.agreed:  # by all processes, so that all leave at the same update
                _save(setup, state, best)
                break

            # validate; a run resumed from the checkpoint of a validation does not repeat it
            if state.update in schedule.validate_at and state.validated != state.update:
                figures = validate(setup, state, best, stop)
                if stop.agreed:
                    continue
                setup.accelerator.log(figures, step=state.update)
                _save(setup, state, best)
            patience_spent = config.patience is not None and state.stale >= config.patience
            if state.update == schedule.updates or patience_spent:
                break

            # set the learning rate: a share of each group's own peak
            share = learning_rate(state.update, schedule.updates, config)
            for group in setup.optimizer.param_groups:
                group["lr"] = share * group["peak"]
            rate = share * config.learning_rate

            # forward, backward, step
            update = schedule.update(state.update, lengths, token_budget)
            step_started = time.monotonic()
            loss, norm = make_update(update, setup, stop)
            state.updating += time.monotonic() - step_started
            state.update += 1

            # log, and write a checkpoint unless a validation is about to
            state.history.append({"update": state.update, "loss": loss, "rate": rate, "norm": norm})
            recent = [row["loss"] for row in state.history[-20:] if "loss" in row]
            bar.add(sum(map(len, update)), loss=float(np.mean(recent)))
            setup.accelerator.log({"train/loss": loss, "train/rate": rate}, step=state.update)
            if state.update % config.checkpoint_every == 0 and state.update not in schedule.validate_at:
                _save(setup, state, best)
    if stop.agreed:
        raise Interrupted(
            f"stopped after update {state.update:,} of {schedule.updates:,}; continue with: "
            f"distilora train --resume {shlex.quote(str(setup.folder))}",
            stop.signal or signal.SIGTERM,
        )


@contextmanager
def _set_up(
    network: Network,
    train: Labelled,
    validation: Labelled,
    config: TrainingConfig,
    run: Path,
    budget: int,
    processes: Processes,
    checkpoints: str,
) -> Iterator[Setup]:
    """Yield the parts of a run, among them those that must be closed: seed, accelerator, caches."""
    with (
        seeded(config.seed, network.device),
        accelerating(config, run, processes) as accelerator,
        closing(PrefixCaches(network, train.rows, validation.rows, config, budget, run / CACHE, processes)) as caches,
    ):
        trained = network.trained()
        optimizer = accelerator.prepare(
            new_optimizer(trained, network.architecture, config)
        )  # the network is shared by `processes`, not wrapped
        yield Setup(
            network, train, validation, config, run, run / checkpoints, budget, processes, accelerator, caches, trained,
            optimizer, Meter(network),
        )  # fmt: skip


def _save(setup: Setup, state: State, best: Best) -> None:
    """Write a checkpoint, from the first process alone. Raises ConfigError for weights that are not finite."""
    if not all(bool(torch.isfinite(weight).all()) for weight in setup.trained.values()):
        raise not_finite("weights are", state.update)
    if setup.processes.first:
        save_checkpoint(setup.checkpoints, state, setup.trained, setup.optimizer, best)


def _start_tracker(accelerator: Any, config: TrainingConfig, done: int) -> None:
    accelerator.init_trackers(
        "events",
        config={k: v for k, v in vars(config).items() if v is not None},
        init_kwargs={"tensorboard": {"purge_step": done + 1}},  # hides what a killed run logged beyond
    )


def _fingerprint(setup: Setup, base: str) -> str:
    """Return the SHA-256 of everything that determines training; a checkpoint with another one is not resumed."""
    digest = hashlib.sha256(base.encode())
    for part in (setup.train, setup.validation):
        for values in (part.rows.ids, part.rows.offsets):
            digest.update(np.ascontiguousarray(values).data)
        digest.update(repr(list(part.targets)).encode())
    free_to_change = ("tracker", "checkpoint_every", "device", "threads", "cache_gb")
    settings = {k: v for k, v in vars(setup.config).items() if k not in free_to_change}
    shapes = {name: list(parameter.shape) for name, parameter in setup.trained.items()}
    digest.update(json.dumps([settings, shapes], sort_keys=True).encode())
    return digest.hexdigest()
