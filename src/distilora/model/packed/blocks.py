"""The arithmetic of post-norm encoder blocks on packed rows, made for training little on top of much that is frozen.

    h = norm1(x + out(attention(q x, k x, v x)))        y = norm2(h + lin2(gelu(lin1 h)))

An adapted layer is one product: W + s B A is formed once for each update of the weights, in fp32, and rounded to the
compute precision. (W keeps its low bits until then, so a small update moves some elements over a rounding border and is
not lost.) The backward pass needs the layer's input and nothing else:

    u = x A'    dB = s dy' u    dA = s (dy B)' x    dx = dy (W + s B A)

No gradient is formed for what is frozen, and a block under the lowest trained one keeps nothing. Where a task reads
only each row's first state, the last block computes those alone, without keys and values (model/packed/attention.py); then

    dB = s dW A'    dA = s B' dW            with dW, the gradient of W + s B A, which is small work for one token a row

All this holds for linear layers and for plain LoRA (rsLoRA differs in s alone). What PEFT can put in their place besides
(DoRA, a bias beside B, other tuners, several adapters at once, hooks) is no W + s B A: `Block.exact` tells, and the network
is then computed by Transformers' and PEFT's own modules.
"""

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from distilora.model.adapters.quantisation import widened
from distilora.model.encoders.families import Architecture, BlockParts
from distilora.model.packed.attention import attend, attend_first, attend_first_backward
from distilora.model.packed.layout import Packed


class Layer:
    """One linear layer of a model, with the low-rank update that PEFT put beside it, if any."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.base = module.base_layer if hasattr(module, "base_layer") else module
        self.quantised = hasattr(self.base.weight, "quant_state")

    def update(self) -> tuple[nn.Parameter, nn.Parameter, float] | None:
        """A [r, in], B [out, r] and the scale of the active adapter; None without one."""
        module = self.module
        if module is self.base or module.disable_adapters or module.merged:
            return None
        names = [name for name in module.active_adapters if name in module.lora_A]
        if not names:
            return None
        (name,) = names
        return module.lora_A[name].weight, module.lora_B[name].weight, float(module.scaling[name])

    @property
    def exact(self) -> bool:
        """Whether the layer now computes W x + b, or (W + s B A) x + b, and nothing else."""
        module = self.module
        if _hooked(module) or _hooked(self.base):
            return False
        if module is self.base:
            return True
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

    def effective(self) -> Tensor:
        """W + s B A in fp32, or W itself where there is nothing to add, [out, in]."""
        weight = widened(self.base.weight) if self.quantised else self.base.weight.detach()
        update = self.update()
        if update is None:
            return cast(Tensor, weight)
        a, b, scale = update
        return torch.addmm(weight.float(), b.detach().float(), a.detach().float(), alpha=scale)


class Projection:
    """Layers that read the same input, as one product: [T, in] -> [T, sum of out]."""

    def __init__(self, modules: list[Any], gelu: bool = False) -> None:
        self.layers = [Layer(module) for module in modules]
        self.gelu = gelu  # of the input, on the way in; formed again in the backward pass
        self.widths = [layer.base.out_features for layer in self.layers]
        self._key: Any = None
        self._sources: list[Tensor] = []
        self._held: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The layers' outputs side by side, [T, sum of out]."""
        trained = [tensor for _, tensor in self.trained()]
        if torch.is_grad_enabled() and (trained or (x.requires_grad and self.gelu)):
            return cast(Tensor, cast(Any, _Project).apply(x, self, *trained))
        weight, bias = self.weights(x.dtype)
        return functional.linear(functional.gelu(x) if self.gelu else x, weight, bias)

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The layers' effective weights [out, in] and biases [out] in `dtype`, formed anew after each update of them.

        Those of 4-bit layers are never kept: they would take what the four bits save.
        """
        sources = [t for layer in self.layers for t in _tensors(layer)]
        key = (dtype, [t._version for t in sources])
        if self._held is not None and key == self._key and all(map(operator.is_, sources, self._sources)):
            return self._held
        with torch.inference_mode(False), torch.no_grad():  # formed when predicting, they serve gradients later, too
            parts = [layer.effective() for layer in self.layers]
            one = len(parts) == 1
            weight = (parts[0] if one else torch.cat(parts)).to(dtype)
            bias = self._bias(dtype)
        if any(layer.quantised for layer in self.layers):
            return weight, bias
        self._key, self._sources, self._held = key, sources, (weight, bias)
        return weight, bias

    def _bias(self, dtype: torch.dtype) -> Tensor | None:
        if all(layer.base.bias is None for layer in self.layers):
            return None
        parts = [
            torch.zeros(width) if layer.base.bias is None else layer.base.bias.detach()
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]
        return torch.cat([part.to(dtype) for part in parts])

    def trained(self) -> Iterator[tuple[tuple[int, str], nn.Parameter]]:
        """What of the layers is trained, by (layer, kind)."""
        for number, layer in enumerate(self.layers):
            update = layer.update()
            found = {"weight": layer.base.weight, "bias": layer.base.bias}
            found |= {"a": update[0], "b": update[1]} if update else {}
            for kind, tensor in found.items():
                if tensor is not None and tensor.requires_grad:
                    yield (number, kind), tensor

    def gradients(self, x: Tensor, dy: Tensor) -> list[Tensor]:
        """Gradients of what is trained, in its order; x is the input [T, in], dy [T, out]."""
        adapted = [update for layer in self.layers if (update := layer.update())]
        u = x @ torch.cat([a.detach() for a, _, _ in adapted]).to(x.dtype).t() if adapted else x
        ends, inner = torch.tensor([0, *self.widths]).cumsum(0).tolist(), 0
        found: dict[tuple[int, str], Tensor] = {}
        low, places = [], []
        for number, layer in enumerate(self.layers):
            dy_own = dy[:, ends[number] : ends[number + 1]]
            update = layer.update()
            if update:
                a, b, scale = update
                rank = a.shape[0]
                found[number, "b"] = (dy_own.t() @ u[:, inner : inner + rank]).to(b.dtype).mul_(scale)
                low.append(dy_own @ b.detach().mul(scale).to(x.dtype))
                places.append((number, rank))
                inner += rank
            if layer.base.weight.requires_grad:
                found[number, "weight"] = (dy_own.t() @ x).to(layer.base.weight.dtype)
            if layer.base.bias is not None and layer.base.bias.requires_grad:
                found[number, "bias"] = dy_own.sum(0, dtype=torch.float32).to(layer.base.bias.dtype)
        if low:
            joined = torch.cat(low, 1).t() @ x  # [sum of ranks, in]
            for (number, _), part in zip(places, torch.split(joined, [rank for _, rank in places]), strict=True):
                found[number, "a"] = part.float()
        return [found[key].to(tensor.dtype) for key, tensor in self.trained()]

    def gradients_of_weight(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Gradients of what is trained, in its order, from those of the joined weight [out, in] and bias [out]."""
        weights, biases = torch.split(weight, self.widths), torch.split(bias, self.widths)
        found = []
        for (number, kind), tensor in self.trained():
            if kind in ("weight", "bias"):
                found.append((weights if kind == "weight" else biases)[number].to(tensor.dtype))
                continue
            update = self.layers[number].update()
            assert update is not None
            a, b, scale = update
            whole = weights[number].float()
            change = b.detach().float().t() @ whole if kind == "a" else whole @ a.detach().float().t()
            found.append(change.mul_(scale).to(tensor.dtype))
        return found


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, projection: Projection, *trained: Tensor) -> Tensor:
        weight, bias = projection.weights(x.dtype)
        ctx.projection = projection
        ctx.weight = None if any(layer.quantised for layer in projection.layers) else weight
        ctx.save_for_backward(x)
        return functional.linear(functional.gelu(x) if projection.gelu else x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        (x,) = ctx.saved_tensors
        projection = cast(Projection, ctx.projection)
        read = functional.gelu(x) if projection.gelu else x
        dx = None
        found = projection.gradients(read, dy) if any(ctx.needs_input_grad[2:]) else []
        if ctx.needs_input_grad[0]:
            del read
            weight = ctx.weight if ctx.weight is not None else projection.weights(x.dtype)[0]
            dx = dy @ weight
            if projection.gelu:
                dx = torch.ops.aten.gelu_backward.grad_input(dx, x, grad_input=dx)
        return dx, None, *found


class _AttendFirst(torch.autograd.Function):
    """`attend_first` with the gradients of what is trained of keys and values."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, x: Tensor, projection: Projection, packed: Packed, heads: int, *trained: Tensor
    ) -> Tensor:
        weight, bias = projection.weights(x.dtype)
        found, kept = attend_first(q, x, weight, bias, packed, heads)
        if any(ctx.needs_input_grad):
            ctx.projection, ctx.packed, ctx.heads, ctx.dtype = projection, packed, heads, x.dtype
            ctx.weight = None if any(layer.quantised for layer in projection.layers) else weight
            ctx.save_for_backward(*kept)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (outer,) = gradients
        projection = cast(Projection, ctx.projection)
        weight = ctx.weight if ctx.weight is not None else projection.weights(ctx.dtype)[0]
        dq, dx, dweight, dbias = attend_first_backward(
            outer, ctx.saved_tensors, weight, ctx.packed, ctx.heads, ctx.needs_input_grad[1]
        )
        found = projection.gradients_of_weight(dweight, dbias) if any(ctx.needs_input_grad[5:]) else []
        return dq, dx, None, None, None, *found


class Block:
    """One block. `y = block(x, packed)` on [size, D]; `block.first(x, packed)` gives [B, D], each row's first state."""

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
        """States after the block, [size, D]."""
        return self._rest(x, attend(self.query_key_value(x), packed, self.heads))

    def first(self, x: Tensor, packed: Packed) -> Tensor:
        """States of the rows' first tokens after the block, [B, D]."""
        start = x[packed.starts]
        trained = [tensor for _, tensor in self.key_value.trained()]
        read = cast(Any, _AttendFirst).apply(self.query(start), x, self.key_value, packed, self.heads, *trained)
        return self._rest(start, read)

    @property
    def exact(self) -> bool:
        """Whether this arithmetic is that of the modules as they are now, adapters included."""
        return all(
            parent._modules.get(name) is child and not _hooked(child) for parent, name, child in self._path
        ) and all(layer.exact for projection in self._projections for layer in projection.layers)

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        h = _norm(self.norm1, self.out(attended), x)
        return _norm(self.norm2, self.lin2(self.lin1(h)), h)


def _norm(norm: nn.LayerNorm, change: Tensor, x: Tensor) -> Tensor:
    return functional.layer_norm(change + x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def blocks_of(model: Any, family: Architecture) -> list[Block] | None:
    """The model's blocks for this arithmetic; None where its family, or its activation, is not of this kind."""
    config = model.config
    parts = family.parts
    if parts is None or getattr(config, "is_decoder", False):
        return None
    if (getattr(config, "activation", None) or getattr(config, "hidden_act", None)) != "gelu":
        return None
    heads = getattr(config, "n_heads", None) or config.num_attention_heads
    modules = list(model.base_model.get_submodule(family.blocks))
    if not all(map(_understood, modules)):
        return None
    return [Block(module, parts, heads) for module in modules]


_LINEAR = {"torch.nn.modules.linear.Linear", "bitsandbytes.nn.modules.Linear4bit"}
_LORA = {"peft.tuners.lora.layer.Linear", "peft.tuners.lora.bnb.Linear4bit"}
_BESIDE = {
    "torch.nn.modules.normalization.LayerNorm", "torch.nn.modules.dropout.Dropout", "torch.nn.modules.linear.Identity",
    "torch.nn.modules.activation.GELU", "torch.nn.modules.module.Module",  # the last in model/plain.py, where it only holds others
}  # fmt: skip


def _understood(module: nn.Module) -> bool:
    """Whether a block is built of Transformers' modules, linear layers, norms, dropout, and LoRA's layers alone.

    Any other tuner of PEFT's, `modules_to_save` and parametrisations put classes of their own in their place.
    """
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if kind in _LORA:
        base = type(cast(Any, module).base_layer)
        return f"{base.__module__}.{base.__qualname__}" in _LINEAR
    if kind not in _LINEAR | _BESIDE and not kind.startswith("transformers."):
        return False
    return all(map(_understood, module.children()))


def _path(module: nn.Module, names: tuple[str, ...]) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, child) of every step from a block down to the modules of these dotted names."""
    steps = {}
    for full in names:
        parent = module
        for name in full.split("."):
            child = parent.get_submodule(name)
            steps[id(parent), name] = (parent, name, child)
            parent = child
    return list(steps.values())


def _hooked(module: nn.Module) -> bool:
    """Whether something was put around the module's forward pass, which is not called here."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _tensors(layer: Layer) -> list[Tensor]:
    update = layer.update()
    found = [layer.base.weight, layer.base.bias, *(update[:2] if update else ())]
    return [tensor for tensor in found if tensor is not None]


def plain(model: Any) -> bool:
    """Whether nothing random happens between the model's layers: it is not in training, or all its dropout is 0."""
    return not any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in model.modules()) and not any(
        (getattr(m, "attention_dropout", None) or 0) > 0
        for m in model.modules()
        if m.training and isinstance(getattr(m, "attention_dropout", None), float)
    )
