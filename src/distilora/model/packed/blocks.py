"""Computes post-norm encoder blocks on packed rows, made for training little on top of much that is frozen.

    h = norm1(x + out(attention(q x, k x, v x)))        y = norm2(h + lin2(gelu(lin1 h)))

An adapted layer is one product: its effective weight (adapters/low_rank.py) is formed once for each update of the weights, in
fp32, and rounded to the compute precision. (W keeps its low bits until then, so a small update moves some elements over a
rounding border and is not lost.) The backward pass needs the layer's input and nothing else.

No gradient is formed for what is frozen, and a block under the lowest trained one keeps nothing. Where a task reads
only each row's first state, the last block computes those alone, without keys and values (attention.py), and gradients come
from that of the effective weight, which is small work for one token a row.

All this holds for linear layers and the updates in the table of methods. What PEFT can put in their place besides (DoRA, a bias
beside B, other tuners, several adapters at once, hooks) is computed otherwise: `Block.exact` tells, and the network is then
computed by Transformers' and PEFT's own modules.
"""

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from distilora.model.adapters.methods import ARITHMETICS
from distilora.model.encoders.families import Architecture, BlockParts, activation_name, head_count
from distilora.model.packed.attention import attend, attend_first, attend_first_backward
from distilora.model.packed.layout import Packed
from distilora.model.packed.linear import Projection, class_name, hooked


class _AttendFirst(torch.autograd.Function):
    """Autograd function of `attend_first`, with the gradients of the trainable tensors of keys and values."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, x: Tensor, projection: Projection, packed: Packed, heads: int, *trained: Tensor
    ) -> Tensor:
        weight, bias = projection.weights(x.dtype)
        out, saved = attend_first(q, x, weight, bias, packed, heads)
        if any(ctx.needs_input_grad):
            ctx.projection, ctx.packed, ctx.heads, ctx.dtype = projection, packed, heads, x.dtype
            ctx.weight = None if any(layer.quantised for layer in projection.layers) else weight
            ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dout,) = gradients
        projection = cast(Projection, ctx.projection)
        weight = ctx.weight if ctx.weight is not None else projection.weights(ctx.dtype)[0]
        dq, dx, dweight, dbias = attend_first_backward(
            dout, ctx.saved_tensors, weight, ctx.packed, ctx.heads, ctx.needs_input_grad[1]
        )
        dtrained = projection.gradients_of_weight(dweight, dbias) if any(ctx.needs_input_grad[5:]) else []
        return dq, dx, None, None, None, *dtrained


class Block:
    """Encoder block: `block(x, packed)` computes [size, D], `block.first(x, packed)` each row's first state alone, [B, D]."""

    def __init__(self, module: nn.Module, parts: BlockParts, heads: int) -> None:
        def find(name: str) -> Any:
            return module.get_submodule(name)

        self.heads = heads
        self._path = _path(module, dataclasses.astuple(parts))
        query, key, value = find(parts.query), find(parts.key), find(parts.value)
        self.query_key_value = Projection([query, key, value])
        self.query = Projection([query])
        self.key_value = Projection([key, value])
        self.out = Projection([find(parts.out)])
        self.norm1 = find(parts.norm1)
        self.lin1 = Projection([find(parts.lin1)])
        self.lin2 = Projection([find(parts.lin2)], gelu=True)
        self.norm2 = find(parts.norm2)
        self._projections = (self.query_key_value, self.out, self.lin1, self.lin2)

    def __call__(self, x: Tensor, packed: Packed) -> Tensor:
        """Compute the states after the block, [size, D]."""
        return self._rest(x, attend(self.query_key_value(x), packed, self.heads))

    def first(self, x: Tensor, packed: Packed) -> Tensor:
        """Compute the states of the rows' first tokens after the block, [B, D]."""
        start = x[packed.starts]
        trained = [tensor for _, tensor in self.key_value.trained()]
        attended = cast(Any, _AttendFirst).apply(self.query(start), x, self.key_value, packed, self.heads, *trained)
        return self._rest(start, attended)

    @property
    def exact(self) -> bool:
        """Whether this arithmetic is that of the modules as they are now, adapters included."""
        return all(
            parent._modules.get(name) is child and not hooked(child) for parent, name, child in self._path
        ) and all(layer.exact for projection in self._projections for layer in projection.layers)

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        h = add_norm(self.norm1, self.out(attended), x)
        return add_norm(self.norm2, self.lin2(self.lin1(h)), h)


def add_norm(norm: nn.LayerNorm, change: Tensor, x: Tensor) -> Tensor:
    """Compute norm(change + x), [n, D]."""
    return functional.layer_norm(change + x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def blocks_of(model: Any, family: Architecture) -> list[Block] | None:
    """Wrap the model's blocks for this arithmetic; None where its family or its activation is not of this kind."""
    config = model.config
    parts = family.parts
    if parts is None or getattr(config, "is_decoder", False):
        return None
    if activation_name(config) != "gelu":
        return None
    modules = list(model.base_model.get_submodule(family.blocks))
    if not all(map(_understood, modules)):
        return None
    return [Block(module, parts, head_count(config)) for module in modules]


_LINEAR = {"torch.nn.modules.linear.Linear", "bitsandbytes.nn.modules.Linear4bit"}
_BESIDE = {
    "torch.nn.modules.normalization.LayerNorm", "torch.nn.modules.dropout.Dropout", "torch.nn.modules.linear.Identity",
    "torch.nn.modules.activation.GELU", "torch.nn.modules.module.Module",  # the last in model/plain.py, where it only holds others
}  # fmt: skip


def _understood(module: nn.Module) -> bool:
    """Tell whether a block is built of Transformers' modules, linear layers, norms, dropout, and layers of known updates alone.

    Any other tuner of PEFT's, `modules_to_save` and parametrisations put classes of their own in their place.
    """
    kind = class_name(module)
    if any(kind in row.classes for row in ARITHMETICS):
        return class_name(cast(Any, module).base_layer) in _LINEAR
    if kind not in _LINEAR | _BESIDE and not kind.startswith("transformers."):
        return False
    return all(map(_understood, module.children()))


def _path(module: nn.Module, names: tuple[str, ...]) -> list[tuple[nn.Module, str, nn.Module]]:
    """List (parent, name, child) of every step from a block down to the modules of these dotted names."""
    steps = {}
    for full in names:
        parent = module
        for name in full.split("."):
            child = parent.get_submodule(name)
            steps[id(parent), name] = (parent, name, child)
            parent = child
    return list(steps.values())


def deterministic(model: Any) -> bool:
    """Tell whether nothing random happens between the model's layers: it is not in training, or all its dropout is 0."""
    return not any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in model.modules()) and not any(
        (getattr(m, "attention_dropout", None) or 0) > 0
        for m in model.modules()
        if m.training and isinstance(getattr(m, "attention_dropout", None), float)
    )
