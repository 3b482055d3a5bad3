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
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.accelerating import accelerating
from distilora.backends.torch_backend import run_network
from distilora.checkpoint import Best, State, load_checkpoint, save_checkpoint
from distilora.config import TrainingConfig
from distilora.encode import Network
from distilora.errors import ConfigError, Interrupted
from distilora.hardware import Precision
from distilora.memory import Meter
from distilora.methods import parameter_groups
from distilora.plan import Update, plan
from distilora.prefix import Prefix, Prefixes
from distilora.progress import Progress, say
from distilora.ranks import Ranks
from distilora.rows import Rows
from distilora.seeds import seeded
from distilora.stop import Stop, noting_signals

CACHE = "cache"  # in the run's folder, while it trains


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
    processes: int  # that shared the work
    prefix: dict[str, Any]  # the frozen-prefix cache: blocks below the cut, bytes of this process's file (0: none)


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
    ranks: Ranks | None = None,
) -> Fitted:
    """Trains the network; `config` is resolved (no nulls for device, precision, token budget, learning rates).

    Args:
        run: the run's folder; checkpoints and curves go below it.
        budget: padded tokens per forward pass of validation.
        resume: go on from the latest checkpoint, if there is one.
        base: what the network was made of (the encoder's checksum, the method); a checkpoint made of other is refused.
        ranks: the processes that share the work; None: this one alone.

    Raises Interrupted after SIGINT or SIGTERM, with the command that resumes; ConfigError if the loss, the gradient or the
    weights are not finite. However it ends, the cache is deleted, trackers are ended, and the caller's random numbers go on.
    """
    ranks = ranks or Ranks()
    with (
        seeded(config.seed, network.device),
        accelerating(config, run, ranks) as accelerator,
        closing(Prefixes(network, train.rows, validation.rows, config, budget, run / CACHE, ranks)) as caches,
    ):
        return _fit(network, train, validation, config, run, budget, resume, base, ranks, accelerator, caches)


def _fit(
    network: Network,
    train: Labelled,
    validation: Labelled,
    config: TrainingConfig,
    run: Path,
    budget: int,
    resume: bool,
    base: str,
    ranks: Ranks,
    accelerator: Any,
    caches: Prefixes,
) -> Fitted:
    """`fit`, once all that must be ended is begun."""
    trained = network.trained()
    optimizer = torch.optim.AdamW(parameter_groups(trained, network.architecture, config), lr=0.0)
    optimizer = accelerator.prepare(optimizer)  # the network is shared by `ranks`, not wrapped
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
    if config.tracker != "none" and ranks.first:
        _start_tracker(accelerator, config, state.update)
    meter = Meter(network)

    def checkpoint() -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in trained.values()):
            raise _not_finite("weights are", state.update)
        if ranks.first:
            save_checkpoint(run / "checkpoints", state, trained, optimizer, best)

    planned: tuple[int, list[Update]] = (-1, [])
    resumed_seconds, started = state.seconds, time.monotonic()
    with noting_signals() as stop, Progress("training", train.rows.groups * config.epochs,
                                             done=_seen(state.update, per_epoch, train, config)) as bar:  # fmt: skip
        state.updating += caches.fill(stop)
        stop.agreed = ranks.any(bool(stop.signal), network.device)
        while True:
            state.seconds = resumed_seconds + time.monotonic() - started
            if stop.agreed:
                checkpoint()
                break
            if state.update in validate_at and state.validated != state.update:
                outputs = _validate(network, validation.rows, config.precision, budget, stop, ranks, caches.validation)
                if stop.agreed:
                    continue
                loss = float(network.task.loss(torch.from_numpy(outputs), validation.targets).mean())
                if not (math.isfinite(loss) and np.isfinite(outputs).all()):
                    raise _not_finite("validation loss is", state.update)
                headline = network.task.headline(outputs, validation.targets)
                _judge(state, best, loss, headline, outputs, trained)
                accelerator.log({"validation/loss": loss, f"validation/{headline[0]}": headline[1]}, step=state.update)
                checkpoint()
            if state.update == total or _patience_spent(state, config):
                break

            epoch, number = divmod(state.update, per_epoch)
            if planned[0] != epoch:
                # of all processes together: each has a share of every micro-batch
                together = config.token_budget * ranks.count
                planned = epoch, plan(train.rows.group_lengths, together, config.update_size, config.seed, epoch)
            rate = learning_rate(state.update, total, config)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["peak"]
            step_started = time.monotonic()
            loss, norm = _step(
                network, train, planned[1][number], config, accelerator, optimizer, meter, stop, ranks, caches
            )
            state.updating += time.monotonic() - step_started
            state.update += 1
            state.history.append({"update": state.update, "loss": loss, "rate": rate * peak, "norm": norm})
            recent = [row["loss"] for row in state.history[-20:] if "loss" in row]
            bar.add(sum(map(len, planned[1][number])), loss=float(np.mean(recent)))
            accelerator.log({"train/loss": loss, "train/rate": rate * peak}, step=state.update)
            if state.update % config.checkpoint_every == 0 and state.update not in validate_at:
                checkpoint()

    if stop.agreed:
        raise Interrupted(
            f"stopped after update {state.update:,} of {total:,}; continue with: distilora train --resume {shlex.quote(str(run))}",
            stop.signal or signal.SIGTERM,
        )
    assert best.outputs is not None
    with torch.no_grad():
        for name, value in best.weights.items():
            trained[name].copy_(value)
    return Fitted(best.outputs.numpy(), state, total, state.update < total, meter.found, ranks.count, caches.summary)


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
    stop: Stop,
    ranks: Ranks,
    caches: Prefixes,
) -> tuple[float, float]:
    """One update of the weights: its mean loss and the norm of its gradient, over all processes."""
    assert config.token_budget is not None
    count = sum(map(len, update))
    total = torch.zeros((), device=network.device)
    network.train()
    for batch in ranks.share(update, train.rows.group_lengths, config.token_budget, caches.owner):
        entering = caches.train.states(batch) if caches.train else None
        with meter.forward(), torch.autocast(network.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            outputs = network(train.rows.take(batch), entering=entering)
        loss = network.task.loss(outputs.float(), [train.targets[i] for i in batch]).sum() / count
        accelerator.backward(loss)
        total += loss.detach()
    trained = network.trained().values()
    if ranks.count > 1:
        for parameter in trained:
            if parameter.grad is None:  # this process had no example of the update
                parameter.grad = torch.zeros_like(parameter)
    stopped = torch.tensor(float(bool(stop.signal)), device=network.device)
    ranks.add_up([total, stopped, *(p.grad for p in trained if p.grad is not None)])
    stop.agreed = bool(stopped > 0)
    if not math.isfinite(float(total)):
        raise _not_finite("loss is")
    norm = accelerator.clip_grad_norm_(trained, config.max_grad_norm)
    if not math.isfinite(float(norm)):
        raise _not_finite("gradient is")
    optimizer.step()
    meter.update(trained, optimizer)
    optimizer.zero_grad()
    return float(total), float(norm)


def _not_finite(what: str, update: int | None = None) -> ConfigError:
    after = "" if update is None else f" after update {update:,}"
    return ConfigError(
        f"training.learning_rate: the {what} not finite{after}; lower it, or set training.precision to fp32"
    )


def _validate(
    network: Network, rows: Rows, precision: Precision, budget: int, stop: Stop, ranks: Ranks, cache: Prefix | None
) -> NDArray[np.float32]:
    """Outputs of all validation examples, [G, ...], in the micro-batches of prediction; nothing of use if `stop.agreed`."""
    network.eval()
    outputs: torch.Tensor | None = None
    with Progress("validation", rows.groups) as bar:
        for batch in ranks.deal(rows.group_lengths, budget):
            if stop.signal:
                break
            some = run_network(network, rows.take(batch), precision, cache.states(batch) if cache else None)
            if outputs is None:
                outputs = torch.zeros(rows.groups, *some.shape[1:])
            outputs[torch.from_numpy(batch)] = torch.from_numpy(some)
            bar.add(len(batch))
    stop.agreed = ranks.any(bool(stop.signal), network.device)
    if stop.agreed:
        return np.empty(0, np.float32)
    if outputs is None:  # fewer examples than processes
        outputs = torch.zeros(rows.groups, *run_network(network, rows.take([0]), precision).shape[1:])
    outputs = outputs.to(network.device)
    ranks.add_up([outputs])
    return outputs.cpu().numpy()


def _judge(
    state: State,
    best: Best,
    loss: float,
    headline: tuple[str, float],
    outputs: NDArray[np.float32],
    trained: dict[str, Any],
) -> None:
    name, value = headline
    state.validated = state.update
    state.history.append({"update": state.update, "validation_loss": loss, f"validation_{name}": value})
    better = loss < state.best_loss
    say(
        f"validation after update {state.update:,}: loss {loss:.4f}, {name.replace('_', ' ')} {value:.4f}"
        + (" (best so far)" if better else "")
    )
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
        for values in (part.rows.ids, part.rows.offsets):
            digest.update(np.ascontiguousarray(values).data)
        digest.update(repr(list(part.targets)).encode())
    kept = {k: v for k, v in vars(config).items() if k not in ("tracker", "checkpoint_every", "device", "threads")}
    shapes = {name: list(parameter.shape) for name, parameter in trained.items()}
    digest.update(json.dumps([kept, shapes], sort_keys=True).encode())
    return digest.hexdigest()


def _seen(update: int, per_epoch: int, train: Labelled, config: TrainingConfig) -> int:
    epochs, rest = divmod(update, per_epoch)
    return epochs * train.rows.groups + min(rest * config.update_size, train.rows.groups)
