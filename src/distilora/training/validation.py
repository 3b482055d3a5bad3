"""Validates the network during training and keeps the best weights so far."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.batching.batches import plan_batches
from distilora.batching.outputs import placed, widened
from distilora.model.network import run_network
from distilora.model.precision import computing_in
from distilora.progress import Progress, say
from distilora.signals import Stop
from distilora.training.checkpoint import Best, State
from distilora.training.setup import Setup
from distilora.training.step import not_finite


def validate(setup: Setup, state: State, best: Best, stop: Stop) -> dict[str, float]:
    """Validate after `state.update` updates; record the result in `state`, and in `best` if it is the best so far.

    Returns the tracker's metrics by name; none if `stop.agreed`, and then nothing is recorded. Raises ConfigError if an
    output or the loss is not finite.
    """
    outputs = validation_outputs(setup, stop)
    if stop.agreed:
        return {}
    task, targets = setup.network.task, setup.validation.targets
    loss = _written_loss(setup) if task.generates else float(task.loss(torch.from_numpy(outputs), targets).mean())
    if not (math.isfinite(loss) and np.isfinite(outputs).all()):
        raise not_finite("validation loss is", state.update)
    name, value = task.headline(outputs, targets)
    state.validated = state.update
    state.history.append({"update": state.update, "validation_loss": loss, f"validation_{name}": value})
    better = loss < state.best_loss
    say(
        f"validation after update {state.update:,}: loss {loss:.4f}, {name.replace('_', ' ')} {value:.4f}"
        + (" (best so far)" if better else "")
    )
    if better:
        state.best_loss, state.best_update, state.stale = loss, state.update, 0
        best.weights = {key: weight.detach().cpu().clone().contiguous() for key, weight in setup.trained.items()}
        best.outputs = torch.from_numpy(outputs)
    else:
        state.stale += 1
    return {"validation/loss": loss, f"validation/{name}": value}


def _written_loss(setup: Setup) -> float:
    """Compute the mean loss of the validation targets' tokens, for a task whose outputs are text; every process computes all."""
    network, rows, targets, total = setup.network, setup.validation.rows, setup.validation.targets, 0.0
    for update in plan_batches(rows.group_lengths, setup.budget):
        for batch in update:
            of_batch = [targets[i] for i in batch]
            with torch.inference_mode(), computing_in(setup.config.precision, network.device):
                logits = network.training_outputs(rows.take(batch), of_batch)
            total += float(network.task.loss(logits.float(), of_batch).sum())
    return total / rows.groups


def validation_outputs(setup: Setup, stop: Stop) -> NDArray[np.float32]:
    """Compute the outputs of all validation examples, [G, ...], in the micro-batches of prediction.

    Returns an empty array if `stop.agreed`.
    """
    network, rows, processes, cache = setup.network, setup.validation.rows, setup.processes, setup.caches.validation
    network.eval()
    collected: NDArray[np.float32] | None = None
    own = np.zeros(rows.groups, bool)  # examples that this process computes
    with Progress("validation", rows.groups) as bar:
        for batch in processes.deal(rows.group_lengths, setup.budget):
            if stop.signal:
                break
            entering = cache.states(batch) if cache else None
            batch_outputs = run_network(network, rows.take(batch), setup.config.precision, entering)
            collected = placed(collected, rows.groups, batch, batch_outputs)
            own[batch] = True
            bar.add(len(batch))
    stop.agreed = processes.any(bool(stop.signal), network.device)
    if stop.agreed:
        return np.empty(0, np.float32)
    if collected is None:  # fewer examples than processes
        first = run_network(network, rows.take([0]), setup.config.precision)
        collected = np.zeros((rows.groups, *first.shape[1:]), np.float32)
    if processes.count == 1:
        return collected
    widths = torch.zeros(processes.count, device=network.device)
    widths[processes.index] = collected.shape[1] if collected.ndim > 1 else 0
    processes.add_up([widths])
    collected = widened(collected, int(widths.max())) if collected.ndim > 1 else collected
    collected[~own] = 0
    outputs = torch.from_numpy(collected).to(network.device)
    processes.add_up([outputs])  # each process has filled in its own examples; the others are 0
    return outputs.cpu().numpy()
