"""Bundles the parts of one training run, which its loop, its steps and its validations share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distilora.batching.rows import Rows
from distilora.config.schema import TrainingConfig
from distilora.model.network import Network
from distilora.training.imbalance import NONE, Balance
from distilora.training.memory import Meter
from distilora.training.prefix_cache import PrefixCaches
from distilora.training.processes import Processes


@dataclass(frozen=True)
class Labelled:
    """Rows with the target of each of their G examples."""

    rows: Rows
    targets: Sequence[Any]
    balance: Balance = NONE


@dataclass(frozen=True)
class Setup:
    """Parts of a training run; weights, optimizer and meter change while it runs, nothing else does."""

    network: Network
    train: Labelled
    validation: Labelled
    config: TrainingConfig  # resolved: no nulls
    folder: Path  # of the run
    checkpoints: Path
    budget: int  # padded tokens per forward pass of a validation
    processes: Processes
    accelerator: Any
    caches: PrefixCaches
    trained: dict[str, torch.nn.Parameter]  # by name
    optimizer: Any  # prepared by the accelerator
    meter: Meter

    @property
    def token_budget(self) -> int:
        """Padded tokens per micro-batch of training, on one process."""
        assert self.config.token_budget is not None
        return self.config.token_budget
