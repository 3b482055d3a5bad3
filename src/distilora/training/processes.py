"""Divides a run among processes: one, or as many as `torchrun` or `accelerate launch` started, on one node or several.

Every process reads the same data, plans the same updates and computes its share of each micro-batch. Gradients are summed
over all processes, so an update equals that of a single process up to the order of addition. Only the first process writes.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.batching.batches import Update, cut, plan_batches
from distilora.errors import ConfigError

WAIT = timedelta(hours=12)  # while the first process evaluates and writes, the others wait


@dataclass(frozen=True)
class Processes:
    """Processes that share a run: this one's index, from 0, and their count."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def share(
        self, update: Update, lengths: NDArray[np.int64], token_budget: int, owner: NDArray[np.int64] | None = None
    ) -> Update:
        """Select this process's share of an update: of each micro-batch every `count`-th example, or those it owns.

        Args:
            lengths: tokens of each example, [N].
            token_budget: padded tokens of a micro-batch of this process.
            owner: process that has each example's states in its cache, [N]; None: no process owns examples.
        """
        if self.count == 1:
            return update
        shares = [b[self.index :: self.count] if owner is None else b[owner[b] == self.index] for b in update]
        return [batch for share in shares if len(share) for batch in cut(share, lengths, token_budget)]

    def deal(self, lengths: NDArray[np.int64], token_budget: int) -> Update:
        """Return this process's micro-batches of a prediction for examples of these lengths."""
        updates = plan_batches(lengths, token_budget * self.count)
        return [batch for update in updates for batch in self.share(update, lengths, token_budget)]

    def owners(self, count: int) -> NDArray[np.int64]:
        """Assign each of `count` examples to a process, [count]."""
        return np.arange(count) % self.count

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count == 1:
            return
        tensors = list(tensors)
        joined = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(joined)
        for tensor, part in zip(tensors, torch.split(joined, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def any(self, here: bool, device: torch.device) -> bool:
        """Tell whether `here` is true in any process."""
        flag = torch.tensor(float(here), device=device)
        self.add_up([flag])
        return bool(flag > 0)

    def all(self, here: bool, device: torch.device) -> bool:
        """Tell whether `here` is true in every process."""
        return not self.any(not here, device)

    def wait(self, device: torch.device) -> None:
        """Block until every process has called this."""
        self.any(False, device)

    def part(self) -> None:
        """Leave the process group; each process continues alone."""
        if self.count > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def from_environment() -> Processes:
    """Read the processes from RANK and WORLD_SIZE, which the launcher sets; without them there is one.

    Raises ConfigError if the two contradict each other.
    """
    count, index = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise ConfigError(f"RANK: {index!r} of WORLD_SIZE {count!r} given; start with torchrun or accelerate launch")
    return Processes(int(index), int(count))


def local_index() -> int:
    """Return this process's index on its node, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
