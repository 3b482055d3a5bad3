"""Updates the weights once, over all micro-batches and processes.

    gradient = sum over the update's examples of  d loss / d weights / their number

accumulated over micro-batches, so that their size does not change it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.batching.batches import Update
from distilora.errors import ConfigError
from distilora.model.precision import computing_in
from distilora.signals import Stop
from distilora.training.setup import Setup


def make_update(update: Update, setup: Setup, stop: Stop) -> tuple[float, float]:
    """Make one update; return its mean loss and its gradient norm before clipping, over all processes.

    Sets `stop.agreed` if any process was told to stop. Raises ConfigError if loss or gradient are not finite.
    """
    network, config, processes, caches = setup.network, setup.config, setup.processes, setup.caches
    examples = sum(map(len, update))
    total = torch.zeros((), device=network.device)
    network.train()
    for batch in processes.share(update, setup.train.rows.group_lengths, setup.token_budget, caches.owner):
        # states entering the lowest trainable block, [T, D]; None: computed below
        entering = caches.train.states(batch) if caches.train else None
        with setup.meter.forward(), computing_in(config.precision, network.device):
            targets = [setup.train.targets[i] for i in batch]
            outputs = network.training_outputs(setup.train.rows.take(batch), targets, entering)
        # divided by the update's size, not the micro-batch's, so that the sum over micro-batches is the mean
        loss = _losses(outputs.float(), setup, batch).sum() / examples
        setup.accelerator.backward(loss)
        total += loss.detach()

    trained = setup.trained.values()
    if processes.count > 1:
        for parameter in trained:
            if parameter.grad is None:  # this process had no example of the update
                parameter.grad = torch.zeros_like(parameter)
    stopped = torch.tensor(float(bool(stop.signal)), device=network.device)
    processes.add_up([total, stopped, *(p.grad for p in trained if p.grad is not None)])
    stop.agreed = bool(stopped > 0)

    if not math.isfinite(float(total)):
        raise not_finite("loss is")
    norm = setup.accelerator.clip_grad_norm_(trained, config.max_grad_norm)
    if not math.isfinite(float(norm)):
        raise not_finite("gradient is")
    setup.optimizer.step()
    setup.meter.update(trained, setup.optimizer)
    setup.optimizer.zero_grad()
    return float(total), float(norm)


def _losses(outputs: torch.Tensor, setup: Setup, batch: NDArray[np.int64]) -> torch.Tensor:
    """Compute the losses of a micro-batch's examples, balanced as the settings ask."""
    balance, targets = setup.train.balance, [setup.train.targets[i] for i in batch]
    if balance.shift is not None:
        outputs = outputs + torch.from_numpy(balance.shift).to(outputs.device)
    losses = setup.network.task.loss(outputs, targets)
    if balance.weights is not None:
        losses = losses * torch.from_numpy(balance.weights[batch]).to(losses.device)
    return losses


def not_finite(what: str, update: int | None = None) -> ConfigError:
    """Return the error for a loss, gradient or weights that are not finite; `update` is the number of updates made."""
    after = "" if update is None else f" after update {update:,}"
    return ConfigError(
        f"training.learning_rate: the {what} not finite{after}; lower it, or set training.precision to fp32, and add "
        "--overwrite to start again in the same folder"
    )
