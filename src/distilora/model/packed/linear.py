"""Computes linear layers on packed rows: those that read the same input as one product, updates added into the weights."""

import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from distilora.model.adapters.methods import ARITHMETICS
from distilora.model.adapters.quantisation import widened


class Layer:
    """Linear layer of a model, with the update that a method put beside it, if any."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.base = module.base_layer if hasattr(module, "base_layer") else module
        self.quantised = hasattr(self.base.weight, "quant_state")
        kind = class_name(module)
        self.arithmetic = next((row for row in ARITHMETICS if kind in row.classes), None)

    def update(self) -> Any | None:
        """Return the update in use now; None without one."""
        return self.arithmetic.active(self.module) if self.arithmetic else None

    @property
    def exact(self) -> bool:
        """Whether the layer now computes W x + b, or that with its effective weight, and nothing else."""
        if hooked(self.module) or hooked(self.base):
            return False
        return self.arithmetic is None or self.arithmetic.exact(self.module)

    def effective(self) -> Tensor:
        """Form the effective weight in fp32, or W itself where there is nothing to add, [out, in]."""
        weight = widened(self.base.weight) if self.quantised else self.base.weight.detach()
        update = self.update()
        if update is None or self.arithmetic is None:
            return cast(Tensor, weight)
        return self.arithmetic.effective(weight, update)

    def tensors(self) -> dict[str, nn.Parameter]:
        """Collect weight, bias and the tensors of the update, by kind."""
        update = self.update()
        tensors = {"weight": self.base.weight, "bias": self.base.bias}
        if update is not None and self.arithmetic is not None:
            tensors |= self.arithmetic.tensors(update)
        return {kind: tensor for kind, tensor in tensors.items() if tensor is not None}


class Projection:
    """Layers that read the same input, computed as one product: [T, in] -> [T, sum of out]."""

    def __init__(self, modules: list[Any], gelu: bool = False) -> None:
        self.layers = [Layer(module) for module in modules]
        self.gelu = gelu  # of the input, on the way in; formed again in the backward pass
        self.widths = [layer.base.out_features for layer in self.layers]
        self._key: Any = None
        self._sources: list[Tensor] = []
        self._cached: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the layers' outputs side by side, [T, sum of out]."""
        trained = [tensor for _, tensor in self.trained()]
        if torch.is_grad_enabled() and (trained or (x.requires_grad and self.gelu)):
            return cast(Tensor, cast(Any, _Project).apply(x, self, *trained))
        weight, bias = self.weights(x.dtype)
        return functional.linear(functional.gelu(x) if self.gelu else x, weight, bias)

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Form the layers' effective weights [out, in] and biases [out] in `dtype`; cached until one of their tensors changes.

        Those of 4-bit layers are not cached: the cache would take the memory that the four bits save.
        """
        sources: list[Tensor] = [tensor for layer in self.layers for tensor in layer.tensors().values()]
        key = (dtype, [t._version for t in sources])
        if self._cached is not None and key == self._key and all(map(operator.is_, sources, self._sources)):
            return self._cached
        with torch.inference_mode(False), torch.no_grad():  # formed when predicting, they serve gradients later, too
            parts = [layer.effective() for layer in self.layers]
            one = len(parts) == 1
            weight = (parts[0] if one else torch.cat(parts)).to(dtype)
            bias = self._bias(dtype)
        if any(layer.quantised for layer in self.layers):
            return weight, bias
        self._key, self._sources, self._cached = key, sources, (weight, bias)
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
        """Yield the trainable tensors, keyed by (layer, kind)."""
        for number, layer in enumerate(self.layers):
            for kind, tensor in layer.tensors().items():
                if tensor.requires_grad:
                    yield (number, kind), tensor

    def gradients(self, x: Tensor, dy: Tensor) -> list[Tensor]:
        """Compute the gradients of the trainable tensors, in their order; x is the input [T, in], dy [T, out]."""
        dys = torch.split(dy, self.widths, 1)
        gradients: dict[tuple[int, str], Tensor] = {}
        for row in ARITHMETICS:
            numbers = [
                n for n, layer in enumerate(self.layers) if layer.arithmetic is row and layer.update() is not None
            ]
            if not numbers:
                continue
            updates = [self.layers[n].update() for n in numbers]
            for number, own in zip(numbers, row.gradients(x, [dys[n] for n in numbers], updates), strict=True):
                gradients |= {(number, kind): gradient for kind, gradient in own.items()}
        for number, (layer, own_dy) in enumerate(zip(self.layers, dys, strict=True)):
            if layer.base.weight.requires_grad:
                gradients[number, "weight"] = (own_dy.t() @ x).to(layer.base.weight.dtype)
            if layer.base.bias is not None and layer.base.bias.requires_grad:
                gradients[number, "bias"] = own_dy.sum(0, dtype=torch.float32).to(layer.base.bias.dtype)
        return [gradients[key].to(tensor.dtype) for key, tensor in self.trained()]

    def gradients_of_weight(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Compute the gradients of the trainable tensors, in their order.

        Args:
            weight, bias: gradients of the layers' joined effective weights [out, in] and biases [out].
        """
        weights, biases = torch.split(weight, self.widths), torch.split(bias, self.widths)
        gradients = []
        for (number, kind), tensor in self.trained():
            layer = self.layers[number]
            if kind in ("weight", "bias"):
                gradient = (weights if kind == "weight" else biases)[number]
            else:
                assert layer.arithmetic is not None
                gradient = layer.arithmetic.gradient_of_weight(weights[number].float(), layer.update(), kind)
            gradients.append(gradient.to(tensor.dtype))
        return gradients


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
        dtrained = projection.gradients(read, dy) if any(ctx.needs_input_grad[2:]) else []
        if ctx.needs_input_grad[0]:
            del read
            weight = ctx.weight if ctx.weight is not None else projection.weights(x.dtype)[0]
            dx = dy @ weight
            if projection.gelu:
                dx = torch.ops.aten.gelu_backward.grad_input(dx, x, grad_input=dx)
        return dx, None, *dtrained


def hooked(module: nn.Module) -> bool:
    """Tell whether something was put around the module's forward pass, which is not called here."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def class_name(module: nn.Module) -> str:
    """Return the full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
