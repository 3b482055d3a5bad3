"""Saves a network's trained weights, loads them again, and merges them into one model.

    form    folder     content                                                              loaded by
    peft    adapter/   PEFT's format: low-rank updates, every head layer                      PeftModel.from_pretrained
    delta   delta/     the trained weights whole, not their differences: nothing is rounded   load_state_dict(..., strict=False)

The names in both are those of the Transformers class.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distilora.errors import ArtifactError
from distilora.model.adapters.low_rank import read_merged
from distilora.model.adapters.methods import Saved
from distilora.model.encoders.families import Architecture, in_head
from distilora.model.network import Network
from distilora.model.quiet import quiet_libraries

ADAPTER = "adapter_model.safetensors"
DELTA = "delta.safetensors"
Weights = dict[str, Tensor]  # by the names of the Transformers class


@dataclass(frozen=True)
class SavedForm:
    """Form in which trained weights are saved: how they are written to a model's folder and read from it."""

    save: Callable[[Network, Path], None]
    """(network, folder): writes a folder of its own into `folder`."""
    load: Callable[[Any, Path], Any]
    """(model, folder) -> the Transformers class with the weights, or the PEFT model around it. Raises ValueError."""
    read: Callable[[Weights, Path, Architecture], tuple[Weights, set[str]] | None]
    """(encoder's weights, folder, family) -> the weights that change, updates added in, and the names of those that were
    themselves trained; None where an update cannot be added into a weight."""


# PEFT's types that change each token by itself, inside the layers; tests compare them with PEFT's own forward pass. Others read
# a whole row (LILY) or wrap the model (prompts, SHADOW, XLORA), which packed rows do not go through.
BY_TOKEN = frozenset(
    "LORA ADALORA ADAMSS BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LN_TUNING LOHA LOKR MISS OFT OSF "
    "PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT".split()
)


def _save_adapter(network: Network, folder: Path) -> None:
    with quiet_libraries():
        network.outer.save_pretrained(folder / "adapter", safe_serialization=True, save_embedding_layers=False)
    # PEFT's empty template; the run's own model card says it all
    (folder / "adapter" / "README.md").unlink(missing_ok=True)


def _load_adapter(model: Any, folder: Path) -> Any:
    """Put the adapter of a folder in PEFT's format around a model. Raises ValueError for one that is not supported."""
    from peft import PeftModel

    folder = folder / "adapter"
    if not (folder / ADAPTER).is_file():  # PEFT would unpickle adapter_model.bin, or ask the Hub
        raise ValueError(f"no {ADAPTER} in {folder.name}/; copy the model again")
    kind = json.loads((folder / "adapter_config.json").read_text("utf-8"))["peft_type"]
    if kind not in BY_TOKEN:
        raise ValueError(f"PEFT's {kind} is not an adapter that is supported; merge it with PEFT, or train lora")
    return PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=False)


def _read_adapter(weights: Weights, folder: Path, family: Architecture) -> tuple[Weights, set[str]] | None:
    changed = read_merged(weights, folder / "adapter", f"{family.model_type}.{family.blocks}.")
    return None if changed is None else (changed, {name for name in changed if in_head(name, family)})


def _save_delta(network: Network, folder: Path) -> None:
    (folder / "delta").mkdir()
    trained = {name.removeprefix("outer."): p.detach().cpu().contiguous() for name, p in network.trained().items()}
    save_file(trained, folder / "delta" / DELTA, metadata={"format": "pt"})


def _load_delta(model: Any, folder: Path) -> Any:
    """Load changed weights into a model, and open them alone to training. Raises ValueError for one it does not have."""
    delta = load_file(folder / "delta" / DELTA)
    unknown = model.load_state_dict(delta, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the encoder has no {unknown[0]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in delta)
    return model


def _read_delta(weights: Weights, folder: Path, family: Architecture) -> tuple[Weights, set[str]]:
    delta = load_file(folder / "delta" / DELTA)
    return delta, set(delta)


SAVED_FORMS: dict[Saved, SavedForm] = {
    "peft": SavedForm(_save_adapter, _load_adapter, _read_adapter),
    "delta": SavedForm(_save_delta, _load_delta, _read_delta),
}


def save_weights(network: Network, folder: Path, form: Saved) -> None:
    """Write the trained weights into a model's folder, in the form that the table above describes."""
    SAVED_FORMS[form].save(network, folder)


def merge(network: Network) -> Any:
    """Add the adapter's updates into the weights and return the Transformers class; `network` is used up.

    Raises ArtifactError if a merged weight is not finite, ValueError on a 4-bit base, which would round the result.
    """
    if not network.has_adapter:
        model = network.model
    else:
        if getattr(network.model, "is_loaded_in_4bit", False):
            raise ValueError("merge onto the widened base")
        try:
            with quiet_libraries():
                model = network.outer.merge_and_unload(safe_merge=True)  # on a copy of each weight, checked for NaN
        except ValueError as error:
            raise ArtifactError(
                f"merging: {' '.join(str(error).split())}; the adapter is not usable, train it again"
            ) from None
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ArtifactError(f"merging: {name} is not finite; the weights are not usable, train them again")
    return model
