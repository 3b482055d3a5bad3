"""The methods of adaptation, one row each: what is injected and trained, what the base is held in, how it is saved.

    method   base                     trained                                 saved
    lora     as loaded                B A beside each target layer, the head  adapter/  PEFT format
    qlora    blocks in 4 bits (NF4)   the same                                adapter/  PEFT format
    full     as loaded                the blocks' own weights, the head       delta/    the changed weights, whole
    head     as loaded                the head                                delta/    the changed weights, whole

Every head layer is trained and saved, whatever the method. `full` on all blocks trains the embeddings, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from distilora.config.schema import AdapterConfig, MethodName
from distilora.errors import ConfigError
from distilora.model.encoders.families import Architecture, in_head

Saved = Literal["peft", "delta"]


@dataclass(frozen=True)
class Method:
    """One row. `inject(model, family, adapter, blocks)` gives the module to train: the model, or a PEFT model around it."""

    name: MethodName
    phrase: str
    quantised: bool
    inject: Callable[[Any, Architecture, AdapterConfig, int], Any]
    saved: Saved
    learning_rate: float  # usual peak


def low_rank(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """A PEFT model around `model`: low-rank updates with B = 0, head layers as `modules_to_save`.

    Raises ConfigError if the targets are not there or cannot be adapted.
    """
    from peft import LoraConfig, get_peft_model

    layers = None if adapter.last_blocks is None else list(range(blocks - adapter.last_blocks, blocks))
    settings = LoraConfig(
        task_type="SEQ_CLS" if type(model).__name__.endswith("SequenceClassification") else None,
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=family.targets(adapter.targets),
        layers_to_transform=layers,
        layers_pattern=family.blocks.rsplit(".", 1)[-1] if layers is not None else None,
        modules_to_save=list(family.head_layers),
    )
    try:
        return get_peft_model(model, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ConfigError(f"adapter.targets: {' '.join(str(error).split())}") from None


def own_weights(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """The model, its last blocks (all: the embeddings, too) and head open to training, the rest frozen."""
    model.requires_grad_(adapter.last_blocks is None)
    for block in model.base_model.get_submodule(family.blocks)[blocks - (adapter.last_blocks or blocks) :]:
        block.requires_grad_(True)
    return _open_head(model, family)


def nothing(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """The model, frozen but for its head."""
    model.requires_grad_(False)
    return _open_head(model, family)


def _open_head(model: Any, family: Architecture) -> Any:
    for name, parameter in model.named_parameters():
        if in_head(name, family):
            parameter.requires_grad_(True)
    return model


METHODS = {
    row.name: row
    for row in (
        Method("lora", "LoRA", False, low_rank, "peft", 5e-4),
        Method("qlora", "QLoRA (LoRA on a 4-bit base)", True, low_rank, "peft", 5e-4),
        Method("full", "full fine-tuning", False, own_weights, "delta", 5e-5),
        Method("head", "a trained head on the frozen encoder", False, nothing, "delta", 1e-3),
    )
}
