"""Weights of a network to and from files: adapters in PEFT's format, changed weights whole, and both merged into one model."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from distilora.errors import ArtifactError
from distilora.model.network import Network
from distilora.model.quiet import quiet_libraries

ADAPTER = "adapter_model.safetensors"


DELTA = "delta.safetensors"


def save_weights(network: Network, folder: Path) -> None:
    """Writes what was trained: `adapter/` as PEFT does, every head layer included, or `delta/`.

    `delta/delta.safetensors` holds the trained weights whole, not their differences, so that nothing is rounded; the
    names are those of the Transformers class, which loads them with `load_state_dict(..., strict=False)`.
    """
    if not network.has_adapter:
        (folder / "delta").mkdir()
        trained = {name.removeprefix("outer."): p.detach().cpu().contiguous() for name, p in network.trained().items()}
        save_file(trained, folder / "delta" / DELTA, metadata={"format": "pt"})
        return
    with quiet_libraries():
        network.outer.save_pretrained(folder / "adapter", safe_serialization=True, save_embedding_layers=False)
    # PEFT's empty template; the run's own model card says it all
    (folder / "adapter" / "README.md").unlink(missing_ok=True)


def merge(network: Network) -> Any:
    """The Transformers class with the adapter's updates added into its weights. Uses `network` up.

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


# Types of PEFT's that change each token for itself, inside the layers: the tests have compared them with PEFT's own forward
# pass. Others read a whole row (LILY), or wrap the model (prompts, SHADOW, XLORA), which packed rows do not go through.
BY_TOKEN = frozenset(
    "LORA ADALORA ADAMSS BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LN_TUNING LOHA LOKR MISS OFT OSF "
    "PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT".split()
)


def with_adapter(model: Any, folder: Path) -> Any:
    """Put the adapter of a folder in PEFT's format around a model. Raises ValueError for one that is not supported."""
    from peft import PeftModel

    if not (folder / ADAPTER).is_file():  # PEFT would unpickle adapter_model.bin, or ask the Hub
        raise ValueError(f"no {ADAPTER} in {folder.name}/; copy the model again")
    kind = json.loads((folder / "adapter_config.json").read_text("utf-8"))["peft_type"]
    if kind not in BY_TOKEN:
        raise ValueError(f"PEFT's {kind} is not an adapter that is supported; merge it with PEFT, or train lora")
    return PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=False)


def with_delta(model: Any, folder: Path) -> Any:
    """Load changed weights into a model, and open them alone to training. Raises ValueError for one it does not have."""
    delta = load_file(folder / DELTA)
    unknown = model.load_state_dict(delta, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the encoder has no {unknown[0]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in delta)
    return model
