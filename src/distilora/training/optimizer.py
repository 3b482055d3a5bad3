"""Configures AdamW: parameter groups with their peak rates, and the schedule as a fraction of the peak."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distilora.config.schema import TrainingConfig
from distilora.model.encoders.families import Architecture, in_head

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(
    trained: "Mapping[str, nn.Parameter]", family: Architecture, config: TrainingConfig
) -> list[dict[str, Any]]:
    """Group the trainable weights: encoder and head have their own peak rates; matrices decay, biases and norms do not."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        groups.setdefault((in_head(name, family), parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": (head and config.head_learning_rate) or config.learning_rate,
            "weight_decay": config.weight_decay if matrices else 0.0,
        }
        for (head, matrices), parameters in groups.items()
    ]


def learning_rate(update: int, total: int, config: TrainingConfig) -> float:
    """Return the fraction of the peak rate at an update: linear warm-up, then the schedule."""
    warmup = max(round(config.warmup * total), 1)
    if update < warmup:
        return (update + 1) / warmup
    left = (total - update) / max(total - warmup, 1)
    if config.schedule == "constant":
        return 1.0
    return left if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))
