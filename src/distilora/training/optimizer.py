"""Optimisers: parameter groups with their peak rates, the schedule as a fraction of the peak, and Muon beside AdamW."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from distilora.config.schema import TrainingConfig
from distilora.model.encoders.families import Architecture, in_head

if TYPE_CHECKING:
    from torch import Tensor, nn

MOMENTUM = 0.95
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups with `muon` set, whose matrices [m, n] are updated by orthogonalised momentum (Jordan et al. 2024).

        b <- 0.95 b + 0.05 g        w <- w - rate * sqrt(max(1, m / n)) * orthogonal(0.05 g + 0.95 b)

    All directions of such an update are equally large, while AdamW's is mostly one or two: a low-rank update learns with its whole
    rank from the first step on (LOG.md: Muon). Decoupled weight decay as in AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update the weights once; gradients of matrices in `muon` groups are used up."""
        for group in self.param_groups:
            for weight in group["params"] if group.get("muon") else ():
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                direction = orthogonal(torch.lerp(weight.grad, momentum, MOMENTUM))
                rows, columns = weight.shape
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
                weight.grad = None  # AdamW leaves it alone then
        return super().step(closure)


def orthogonal(matrix: "Tensor") -> "Tensor":
    """Move all singular values of a matrix [m, n] near 1 (0.7 to 1.2), by five steps of a Newton-Schulz iteration.

    X <- a X + (b A + c A A) X, A = X X', from X of Frobenius norm 1; the coefficients are Jordan et al.'s (2024).
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def new_optimizer(
    trained: "Mapping[str, nn.Parameter]", family: Architecture, config: TrainingConfig
) -> torch.optim.Optimizer:
    """Create the optimiser that the settings ask for, with the groups of `parameter_groups`."""
    kind = Muon if config.optimizer == "muon" else torch.optim.AdamW
    return kind(parameter_groups(trained, family, config), lr=0.0)


def parameter_groups(
    trained: "Mapping[str, nn.Parameter]", family: Architecture, config: TrainingConfig
) -> list[dict[str, Any]]:
    """Group the trainable weights: encoder and head have their own peak rates; matrices decay, biases and norms do not.

    With Muon the matrices of the encoder's blocks are its own; the head, embeddings and vectors stay AdamW's.
    """
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        matrix = parameter.dim() == 2
        muon = config.optimizer == "muon" and matrix and f".{family.blocks}." in f".{name}"
        groups.setdefault((in_head(name, family), parameter.dim() > 1, muon), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": (head and config.head_learning_rate) or config.learning_rate,
            "weight_decay": config.weight_decay if matrices else 0.0,
            **({"muon": True} if muon else {}),
        }
        for (head, matrices, muon), parameters in groups.items()
    ]


def learning_rate(update: int, total: int, config: TrainingConfig) -> float:
    """Return the fraction of the peak rate at an update: linear warm-up, then the schedule."""
    warmup = max(round(config.warmup * total), 1)
    if update < warmup:
        return (update + 1) / warmup
    left = (total - update) / max(total - warmup, 1)
    if config.schedule == "constant":
        return 1.0
    return left if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))
