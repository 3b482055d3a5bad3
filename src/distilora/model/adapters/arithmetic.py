"""Describes a kind of update of a linear layer y = W x + b, one row of functions each, for the packed arithmetic.

An update is an object of the row's own: its tensors, and whatever else forms the effective weight. `low_rank.py` has one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Update = Any


@dataclass(frozen=True)
class Arithmetic:
    """Row of functions for one kind of update; `gradients` are keyed as `tensors` are."""

    classes: frozenset[str]
    """Full names of the classes that hold such an update beside a layer."""
    active: Callable[[Any], Update | None]
    """The update in use now in a module; None: the module computes as its base layer does."""
    exact: Callable[[Any], bool]
    """Whether the module computes y = `effective` x + b, and nothing else."""
    tensors: Callable[[Update], Mapping[str, "nn.Parameter"]]
    """Its tensors, by kind."""
    effective: Callable[["Tensor", Update], "Tensor"]
    """The effective weight in fp32, [out, in], from W [out, in] and the update."""
    gradients: Callable[["Tensor", Sequence["Tensor"], Sequence[Update]], list[dict[str, "Tensor"]]]
    """Gradients of the updates of layers that read the same input x [T, in], from their outputs' gradients, each [T, out]."""
    gradient_of_weight: Callable[["Tensor", Update, str], "Tensor"]
    """Gradient of one tensor, by kind, from the effective weight's [out, in], in fp32."""
    adapted: Callable[[Any], "nn.Parameter | None"]
    """The weight of a module that updates are added to; None for a module without any."""
