"""Puts a base into 4 bits for QLoRA: NF4 in blocks of 64, scales quantised once more (Dettmers et al. 2023), by bitsandbytes.

    W  ~  scale[block] * NF4[code],   scale = scale2 * int8 + mean

The linear layers of the blocks are stored so, and widened to the compute precision at each use; embeddings, norms, biases
and head layers are not. They are quantised on the CPU whatever the device, so that the four bits are the same everywhere.
"""

import importlib.util
import logging
import sys
from importlib import metadata
from typing import Any, cast

import torch
from torch import nn

from distilora.errors import ConfigError, EncoderError, MissingExtra
from distilora.model.encoders.families import Architecture

BLOCK = 64
QUANTISATION = {"library": "bitsandbytes", "type": "nf4", "block": BLOCK, "double": True}


def require_bitsandbytes(hint: str = "") -> Any:
    """Import bitsandbytes without letting it reach for the Hub. Raises MissingExtra if it is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "qlora", hint)
    import_offline()
    import bitsandbytes

    return bitsandbytes


def import_offline() -> None:
    """Import bitsandbytes, if it is installed, as if the package `kernels` were not.

    Where it finds that package, bitsandbytes downloads a kernel from the Hub while it is imported, and PEFT imports it
    for every adapter. The kernel serves a path that is not used here (see `quantise`). Call this before PEFT.
    """
    if "bitsandbytes" in sys.modules or importlib.util.find_spec("bitsandbytes") is None:
        return
    logger = logging.getLogger("bitsandbytes")
    level, kernels = logger.level, sys.modules.get("kernels")
    logger.setLevel(logging.ERROR)  # it would say that the kernel could not be had
    sys.modules["kernels"] = cast(Any, None)  # Python's way to make an import fail
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
        logger.setLevel(level)


def describe() -> dict[str, Any]:
    """Return the fields that an artifact records of the quantisation."""
    return {**QUANTISATION, "version": metadata.version("bitsandbytes")}


def check_device(device: torch.device) -> None:
    """Check that bitsandbytes has 4-bit kernels for a device. Raises ConfigError if not."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"adapter.method: qlora does not run on {device.type}; use lora, or --training.device cpu")


def quantise(model: Any, family: Architecture, precision: str) -> None:
    """Put the linear layers of the model's blocks into 4 bits, in place; they compute in `precision` ('bf16', 'fp32').

    Raises MissingExtra without bitsandbytes, EncoderError if the blocks hold no linear layer.
    """
    bnb = require_bitsandbytes()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    blocks = model.base_model.get_submodule(family.blocks)
    layers = [(name, layer) for name, layer in blocks.named_modules() if type(layer) is nn.Linear]
    if not layers:
        raise EncoderError(f"adapter.method: qlora finds no linear layers in {family.model_type}'s blocks; use lora")
    for name, layer in layers:
        four = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, dtype, quant_type="nf4", device="meta"
        )
        four.weight = bnb.nn.Params4bit(
            layer.weight.detach().cpu(), False, blocksize=BLOCK, compress_statistics=True, quant_type="nf4", module=four
        )
        four.bias = layer.bias
        four.weight = four.weight.to("cpu")
        four.weight.quant_state.dtype = dtype  # what the backward pass widens to
        # Without gradients bitsandbytes would repack the weights for AVX512-BF16, rounding their scales to bf16, and
        # keep them so: after the first validation the network would be another, and no gradient would pass it.
        four.support_avx512bf16_for_cpu = False
        parent, _, child = name.rpartition(".")
        setattr(blocks.get_submodule(parent), child, four)
    model.is_loaded_in_4bit = True  # by which PEFT knows


def dequantise(model: Any, family: Architecture) -> None:
    """Replace 4-bit layers by layers of the same values in fp32, in place."""
    bnb = require_bitsandbytes()
    blocks = model.base_model.get_submodule(family.blocks)
    for name, four in [(n, m) for n, m in blocks.named_modules() if isinstance(m, bnb.nn.Linear4bit)]:
        layer = nn.Linear(four.in_features, four.out_features, four.bias is not None, device="meta")
        layer.weight = nn.Parameter(widened(four.weight), requires_grad=False)
        layer.bias = four.bias
        parent, _, child = name.rpartition(".")
        setattr(blocks.get_submodule(parent), child, layer)
    model.is_loaded_in_4bit = False


def widened(weight: Any) -> torch.Tensor:
    """Return a 4-bit weight in fp32, [out, in]."""
    bnb = require_bitsandbytes()
    state = weight.quant_state
    before, state.dtype = state.dtype, torch.float32
    try:
        return bnb.functional.dequantize_4bit(weight.data, state).float()  # type: ignore[no-any-return]
    finally:
        state.dtype = before


def size(parameter: torch.Tensor) -> int:
    """Count the numbers a parameter stands for, however many bits each takes."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def storage_of(parameter: torch.Tensor) -> list[torch.Tensor]:
    """List the tensors that store a parameter: itself, and the scales and codes of one in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return [parameter]
    parts = [state.absmax, state.code, state.offset]
    if state.nested:
        parts += [state.state2.absmax, state.state2.code]
    return [parameter.data, *(part for part in parts if part is not None)]
