"""Holds the forms in which trained weights are saved, one row each: the file, how it is written and read, how others load it.

    form    file                                content
    peft    adapter/adapter_model.safetensors   PEFT's format: low-rank updates, every head layer
    delta   delta/delta.safetensors             the trained weights whole, not their differences: nothing is rounded

The names in both are those of the Transformers class. A method names its form (model/adapters/methods.py).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distilora.model.adapters.low_rank import read_merged
from distilora.model.encoders.families import Architecture, in_head
from distilora.model.quiet import quiet_libraries

if TYPE_CHECKING:
    from torch import Tensor

    from distilora.model.network import Network

    Weights = dict[str, Tensor]  # by the names of the Transformers class

Saved = Literal["peft", "delta"]
ADAPTER = "adapter/adapter_model.safetensors"
DELTA = "delta/delta.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Lines of Python, and their packages, by which trained weights are loaded without distilora."""

    library: str  # as the Hub names it
    packages: str
    imports: str
    code: str  # from `base`, the Transformers class on the encoder, to `model`; {run} stands for the run's folder


@dataclass(frozen=True)
class SavedForm:
    """Form in which trained weights are saved: how they are written to a model's folder and read from it."""

    file: str
    """The only file in a model's folder that the weights are read from."""
    save: "Callable[[Network, Path], None]"
    """(network, folder): writes a folder of its own into `folder`."""
    load: Callable[[Any, Path], Any]
    """(model, folder) -> the Transformers class with the weights, or the PEFT model around it. Raises ValueError."""
    read: "Callable[[Weights, Path, Architecture], tuple[Weights, set[str]] | None]"
    """(encoder's weights, folder, family) -> the weights that change, updates added in, and the names of those that were
    themselves trained; None where an update cannot be added into a weight."""
    elsewhere: Recipe
    """How the weights are loaded without distilora, for the model card."""


# PEFT's types that change each token by itself, inside the layers; tests compare them with PEFT's own forward pass. Others read
# a whole row (LILY) or wrap the model (prompts, SHADOW, XLORA), which packed rows do not go through.
BY_TOKEN = frozenset(
    "LORA ADALORA ADAMSS BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LN_TUNING LOHA LOKR MISS OFT OSF "
    "PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT".split()
)


def _save_adapter(network: "Network", folder: Path) -> None:
    with quiet_libraries():
        network.outer.save_pretrained(folder / "adapter", safe_serialization=True, save_embedding_layers=False)
    # PEFT's empty template; the run's own model card says it all
    (folder / "adapter" / "README.md").unlink(missing_ok=True)


def _load_adapter(model: Any, folder: Path) -> Any:
    """Put the adapter of a folder in PEFT's format around a model. Raises ValueError for one that is not supported."""
    from peft import PeftModel

    file = folder / ADAPTER
    folder = file.parent
    if not file.is_file():  # PEFT would unpickle adapter_model.bin, or ask the Hub
        raise ValueError(f"no {file.name} in {folder.name}/; copy the model again")
    kind = json.loads((folder / "adapter_config.json").read_text("utf-8"))["peft_type"]
    if kind not in BY_TOKEN:
        raise ValueError(f"PEFT's {kind} is not an adapter that is supported; merge it with PEFT, or train lora")
    return PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=False)


def _read_adapter(weights: "Weights", folder: Path, family: Architecture) -> "tuple[Weights, set[str]] | None":
    changed = read_merged(weights, folder / "adapter", f"{family.model_type}.{family.blocks}.")
    return None if changed is None else (changed, {name for name in changed if in_head(name, family)})


def _save_delta(network: "Network", folder: Path) -> None:
    from safetensors.torch import save_file

    (folder / DELTA).parent.mkdir()
    trained = {name.removeprefix("outer."): p.detach().cpu().contiguous() for name, p in network.trained().items()}
    save_file(trained, folder / DELTA, metadata={"format": "pt"})


def _load_delta(model: Any, folder: Path) -> Any:
    """Load changed weights into a model, and open them alone to training. Raises ValueError for one it does not have."""
    from safetensors.torch import load_file

    delta = load_file(folder / DELTA)
    unknown = model.load_state_dict(delta, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the encoder has no {unknown[0]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in delta)
    return model


def _read_delta(weights: "Weights", folder: Path, family: Architecture) -> "tuple[Weights, set[str]]":
    from safetensors.torch import load_file

    delta = load_file(folder / DELTA)
    return delta, set(delta)


SAVED_FORMS: dict[Saved, SavedForm] = {
    "peft": SavedForm(
        ADAPTER, _save_adapter, _load_adapter, _read_adapter,
        Recipe(
            "peft", "Transformers and PEFT", "from peft import PeftModel",
            'model = PeftModel.from_pretrained(base, "{run}/model/adapter").eval()',
        ),
    ),
    "delta": SavedForm(
        DELTA, _save_delta, _load_delta, _read_delta,
        Recipe(
            "transformers", "Transformers", "from safetensors.torch import load_file",
            'base.load_state_dict(load_file("{run}/model/delta/delta.safetensors"), strict=False)\nmodel = base.eval()',
        ),
    ),
}  # fmt: skip
