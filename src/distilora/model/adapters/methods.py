"""Holds the methods of adaptation, one row each: what is injected and trained, how the base is stored, how it is saved.

    method   base                     trained                                 saved
    lora     as loaded                B A beside each target layer, the head  adapter/  PEFT format
    qlora    blocks in 4 bits (NF4)   the same                                adapter/  PEFT format
    full     as loaded                the blocks' own weights, the head       delta/    the changed weights, whole
    head     as loaded                the head                                delta/    the changed weights, whole

Every head layer is trained and saved, whatever the method. `full` on all blocks trains the embeddings, too. A new method is a
row here, and a file beside this one if its arithmetic is new; the forms of saving are the rows of saved.py. No other module
knows a method by its name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distilora.config.schema import AdapterConfig, MethodName
from distilora.errors import ConfigError
from distilora.model.adapters import low_rank
from distilora.model.adapters.arithmetic import Arithmetic
from distilora.model.adapters.saved import Saved
from distilora.model.encoders.families import Architecture, in_head


@dataclass(frozen=True)
class Method:
    """Row of the table: one method of adaptation."""

    name: MethodName
    phrase: str
    inject: Callable[[Any, Architecture, AdapterConfig, int], Any]
    """(model, family, adapter, blocks) -> the module to train: the model, or a PEFT model around it."""
    numbers: Callable[[AdapterConfig, Sequence[int], bool], int]
    """(adapter, shape, targeted) -> numbers trained for a weight of that shape in a block that is trained."""
    saved: Saved
    learning_rate: float
    """Peak learning rate that usually serves."""
    arithmetic: Arithmetic | None = None
    """Update that it puts beside a linear layer; None: none."""
    settings: tuple[str, ...] = ()
    """Settings of `adapter` that it reads, besides `last_blocks`."""
    check: Callable[[AdapterConfig], None] = lambda adapter: None
    """Raises ConfigError for settings that do not go with the method."""
    quantised: bool = False
    """Whether the blocks' weights are stored in 4 bits."""


def _own_weights(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """Open the last blocks (all: the embeddings, too) and the head to training; freeze the rest."""
    model.requires_grad_(adapter.last_blocks is None)
    for block in model.base_model.get_submodule(family.blocks)[blocks - (adapter.last_blocks or blocks) :]:
        block.requires_grad_(True)
    return _open_head(model, family)


def _head_alone(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """Freeze the model but for its head."""
    model.requires_grad_(False)
    return _open_head(model, family)


def _open_head(model: Any, family: Architecture) -> Any:
    for name, parameter in model.named_parameters():
        if in_head(name, family):
            parameter.requires_grad_(True)
    return model


def _check_full(adapter: AdapterConfig) -> None:
    _check_no_update(adapter, "full", "narrow it with adapter.last_blocks, or use method lora")


def _check_head(adapter: AdapterConfig) -> None:
    if adapter.last_blocks is not None:
        raise ConfigError(
            f"adapter.last_blocks: {adapter.last_blocks} given, but method head trains in no block; set it to null, or use "
            "method lora or full"
        )
    _check_no_update(adapter, "head", "use method lora")


def _check_no_update(adapter: AdapterConfig, name: str, instead: str) -> None:
    if adapter.dropout:
        raise ConfigError(
            f"adapter.dropout: {adapter.dropout} given, but method {name} has no low-rank update to drop from; use "
            "training.dropout, or method lora"
        )
    if adapter.targets != "all":
        raise ConfigError(f"adapter.targets: given, but method {name} has no low-rank updates to place; {instead}")


_LOW_RANK_SETTINGS = ("r", "alpha", "dropout", "targets")
METHODS = {
    row.name: row
    for row in (
        Method(
            "lora", "LoRA", low_rank.inject, low_rank.numbers, "peft", 5e-4, low_rank.LOW_RANK, _LOW_RANK_SETTINGS,
        ),
        Method(
            "qlora", "QLoRA (LoRA on a 4-bit base)", low_rank.inject, low_rank.numbers, "peft", 5e-4, low_rank.LOW_RANK,
            _LOW_RANK_SETTINGS, quantised=True,
        ),
        Method(
            "full", "full fine-tuning", _own_weights, lambda adapter, shape, targeted: math.prod(shape), "delta", 5e-5,
            check=_check_full,
        ),
        Method(
            "head", "a trained head on the frozen encoder", _head_alone, lambda adapter, shape, targeted: 0, "delta", 1e-3,
            check=_check_head,
        ),
    )
}  # fmt: skip
ARITHMETICS = tuple(dict.fromkeys(row.arithmetic for row in METHODS.values() if row.arithmetic is not None))
