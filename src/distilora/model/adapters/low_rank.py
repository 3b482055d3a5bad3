"""Adds low-rank updates beside linear layers: LoRA (Hu et al. 2021), in PEFT's modules, files and settings.

    W + s B A    A [r, in], B [out, r];    s = alpha / r, of rsLoRA alpha / sqrt(r)

The sum is formed once for each update of the weights, in fp32. Its gradients, with x the layer's input and u = x A':

    dB = s dy' u    dA = s (dy B)' x         or, from dW, the gradient of the sum:    dB = s dW A'    dA = s B' dW
"""

import json
import math
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distilora.config.schema import AdapterConfig
from distilora.errors import ConfigError
from distilora.model.adapters.arithmetic import Arithmetic
from distilora.model.encoders.families import Architecture

if TYPE_CHECKING:
    from torch import Tensor, nn

    Weights = dict[str, Tensor]

_SAVED = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Values in PEFT's configuration by which the update is s B A and nothing else; other keys that are set mean another method.
_PLAIN = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False}
_IRRELEVANT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_alpha", "lora_dropout",
    "modules_to_save", "peft_type", "peft_version", "r", "revision", "target_modules", "task_type", "use_rslora", "bias",
    "fan_in_fan_out", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "loftq_config",
}  # fmt: skip
_OWN_BASE = (True, False, None, "gaussian", "orthogonal")  # initialisations that leave the base as it is


class LowRank(NamedTuple):
    """Update s B A of a layer."""

    a: "nn.Parameter"  # [r, in]
    b: "nn.Parameter"  # [out, r]
    scale: float


def inject(model: Any, family: Architecture, adapter: AdapterConfig, blocks: int) -> Any:
    """Put a PEFT model around `model`: low-rank updates with B = 0, head layers as `modules_to_save`.

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


def numbers(adapter: AdapterConfig, shape: Sequence[int], targeted: bool) -> int:
    """Count the numbers trained beside a weight of this shape."""
    return adapter.r * sum(shape) if targeted and len(shape) == 2 else 0


def _active(module: Any) -> LowRank | None:
    if module.disable_adapters or module.merged:
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if not names:
        return None
    (name,) = names
    return LowRank(module.lora_A[name].weight, module.lora_B[name].weight, float(module.scaling[name]))


def _exact(module: Any) -> bool:
    from torch import nn

    if module.merged:
        return not module.disable_adapters  # PEFT would take the update out of W again
    if module.disable_adapters:
        return True
    names = [name for name in module.active_adapters if name in module.lora_A]
    return len(names) <= 1 and all(
        name not in getattr(module, "lora_variant", {})
        and not module.use_dora.get(name)
        and type(module.lora_A[name]) is type(module.lora_B[name]) is nn.Linear
        and module.lora_B[name].bias is None
        for name in names
    )


def _effective(weight: "Tensor", update: LowRank) -> "Tensor":
    return weight.float().addmm(update.b.detach().float(), update.a.detach().float(), alpha=update.scale)


def _gradients(x: "Tensor", dys: Sequence["Tensor"], updates: Sequence[LowRank]) -> list[dict[str, "Tensor"]]:
    import torch

    ranks = [update.a.shape[0] for update in updates]
    u = x @ torch.cat([update.a.detach() for update in updates]).to(x.dtype).t()  # [T, sum of ranks]
    gradients: list[dict[str, Tensor]] = []
    inner = []
    for dy, own, (_, b, scale) in zip(dys, torch.split(u, ranks, 1), updates, strict=True):
        gradients.append({"b": (dy.t() @ own).to(b.dtype).mul_(scale)})
        inner.append(dy @ b.detach().mul(scale).to(x.dtype))
    joined = torch.cat(inner, 1).t() @ x  # [sum of ranks, in]
    for gradient, part in zip(gradients, torch.split(joined, ranks), strict=True):
        gradient["a"] = part.float()
    return gradients


def _gradient_of_weight(dw: "Tensor", update: LowRank, kind: str) -> "Tensor":
    a, b, scale = update
    change = b.detach().float().t() @ dw if kind == "a" else dw @ a.detach().float().t()
    return change.mul_(scale)


def _adapted(module: Any) -> "nn.Parameter | None":
    if not getattr(module, "lora_A", None):
        return None
    return getattr(module.base_layer, "weight", None)


LOW_RANK = Arithmetic(
    classes=frozenset({"peft.tuners.lora.layer.Linear", "peft.tuners.lora.bnb.Linear4bit"}),
    active=_active,
    exact=_exact,
    tensors=lambda update: {"a": update.a, "b": update.b},
    effective=_effective,
    gradients=_gradients,
    gradient_of_weight=_gradient_of_weight,
    adapted=_adapted,
)


class SavedUpdate(NamedTuple):
    """Update s B A of a layer, as it is read from a file."""

    a: "Tensor"  # [r, in]
    b: "Tensor"  # [out, r]
    scale: float


def read_updates(folder: Path, blocks: str, known: Container[str]) -> "tuple[dict[str, SavedUpdate], Weights] | None":
    """Read an adapter's folder in PEFT's format: the updates by their layers' names, and the weights that were saved whole.

    Args:
        blocks: the prefix of the blocks' weights.
        known: names of the encoder's weights; all names are those of the Transformers class.

    Returns None for another method than plain LoRA, or an update outside the blocks, which PEFT adds to the layer's output, not
    its weight. Raises OSError, ValueError, KeyError or SafetensorError for files that are damaged.
    """
    from safetensors.torch import load_file

    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    odd = [name for name, value in settings.items() if value and name not in _IRRELEVANT]
    same_base = settings.get("init_lora_weights") in _OWN_BASE
    if odd or not same_base or any(settings.get(name, value) != value for name, value in _PLAIN.items()):
        return None
    factors: dict[str, dict[str, Tensor]] = {}
    whole: Weights = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        if match := _SAVED.fullmatch(name):
            factors.setdefault(match[1], {})[match[2]] = tensor
        elif ".lora_" in name:
            return None
        else:
            whole[name.removeprefix("base_model.model.")] = tensor
    updates = {}
    for layer, pair in factors.items():
        if f"{layer}.weight" not in known or set(pair) != {"A", "B"} or not layer.startswith(blocks):
            return None
        rank = settings["r"]
        scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        updates[layer] = SavedUpdate(pair["A"], pair["B"], scale)
    return updates, whole


def read_merged(weights: "Weights", folder: Path, blocks: str) -> "Weights | None":
    """Read the weights that an adapter in PEFT's format changes: W + s B A in the blocks, and the layers saved whole.

    `weights` are the encoder's, by the names of the Transformers class; returns None and raises as `read_updates` does.
    """
    saved = read_updates(folder, blocks, weights)
    if saved is None:
        return None
    updates, changed = saved
    for layer, (a, b, scale) in updates.items():
        changed[f"{layer}.weight"] = weights[f"{layer}.weight"].float().addmm(b.float(), a.float(), alpha=scale)
    return changed
