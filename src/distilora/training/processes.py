"""The processes that share a run: one, or as many as `torchrun` or `accelerate launch` started, on one node or several.

Each reads the same data and plans the same updates. Of each micro-batch a process computes its share; the sums of gradients
are added up over all of them, so an update is the same as one process's up to the order of addition. The first process
alone writes.
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

WAIT = timedelta(hours=12)  # the first process evaluates and writes while the others have nothing to do


@dataclass(frozen=True)
class Processes:
    """This process's number, from 0, and how many there are."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def share(
        self, update: Update, lengths: NDArray[np.int64], token_budget: int, owner: NDArray[np.int64] | None = None
    ) -> Update:
        """What of an update this process computes: of each micro-batch every `count`-th example, or those it owns.

        Args:
            lengths: tokens of each example, [N].
            token_budget: padded tokens of a micro-batch of this process.
            owner: process of each example, [N], where it holds something of it; None: anyone may have it.
        """
        if self.count == 1:
            return update
        mine = [b[self.index :: self.count] if owner is None else b[owner[b] == self.index] for b in update]
        return [part for batch in mine if len(batch) for part in cut(batch, lengths, token_budget)]

    def deal(self, lengths: NDArray[np.int64], token_budget: int) -> Update:
        """This process's micro-batches of a prediction for all examples of these lengths."""
        together = plan_batches(lengths, token_budget * self.count)
        return [batch for update in together for batch in self.share(update, lengths, token_budget)]

    def owners(self, count: int) -> NDArray[np.int64]:
        """The process that owns each of `count` examples, [count]."""
        return np.arange(count) % self.count

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes."""
        if self.count == 1:
            return
        tensors = list(tensors)
        joined = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(joined)
        for tensor, part in zip(tensors, torch.split(joined, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it holds for any process."""
        flag = torch.tensor(float(here), device=device)
        self.add_up([flag])
        return bool(flag > 0)

    def all(self, here: bool, device: torch.device) -> bool:
        """Whether it holds for every process."""
        return not self.any(not here, device)

    def wait(self, device: torch.device) -> None:
        """Returns once every process has come here."""
        self.any(False, device)

    def part(self) -> None:
        """Ends what the processes share; each goes on alone."""
        if self.count > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def from_environment() -> Processes:
    """The processes as their launcher describes them: RANK and WORLD_SIZE; one where nothing does.

    Raises ConfigError if the two make no sense.
    """
    count, index = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise ConfigError(f"RANK: {index!r} of WORLD_SIZE {count!r} given; start with torchrun or accelerate launch")
    return Processes(int(index), int(count))


def local_index() -> int:
    """This process's number on its node: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))
