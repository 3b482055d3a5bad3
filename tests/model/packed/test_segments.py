"""Updates go to their own segments and to nothing else, and small ones are not lost to rounding."""

import pytest
import torch
from torch import nn

from distilora.model.packed.linear import Projection
from distilora.model.packed.segments import Span, Update, project

SPANS = (Span(0, 40), Span(40, 45), Span(45, 128))


def layers(size: float, dtype: torch.dtype) -> tuple[Projection, torch.Tensor, list[Update]]:
    """Two layers that read the same input, 128 of them, and an update of the first, of the second and of both."""
    torch.manual_seed(0)
    modules = [nn.Linear(64, 48), nn.Linear(64, 32)]
    for module in modules:
        module.requires_grad_(False).to(dtype)
    widths, updates = {0: slice(0, 48), 1: slice(48, 80)}, []
    for adapted in ((0,), (1,), (0, 1)):
        parts = [
            (widths[n], slice(4 * i, 4 * i + 4), torch.randn(4, modules[n].out_features)) for i, n in enumerate(adapted)
        ]
        a = torch.randn(4 * len(adapted), 64) * size
        updates.append(Update(a.to(dtype), tuple((columns, ranks, b.to(dtype)) for columns, ranks, b in parts)))
    return Projection(modules), torch.randn(128, 64).to(dtype), updates


def changes(x: torch.Tensor, updates: list[Update]) -> torch.Tensor:
    """What the updates add, in fp64."""
    change = torch.zeros(len(x), 80, dtype=torch.float64)
    for (start, stop), (a, parts) in zip(SPANS, updates, strict=True):
        for columns, ranks, b in parts:
            change[start:stop, columns] = x[start:stop].double() @ a[ranks].double().t() @ b.double()
    return change


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=["fp32", "bf16"])
def test_each_segment_has_its_own_update(dtype: torch.dtype, atol: float) -> None:
    projection, x, updates = layers(0.1, dtype)
    exact = project(projection, x.float(), []).double() + changes(x, updates)
    y = project(projection, x, zip(SPANS, updates, strict=True))
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=atol)
    alone = project(projection, x[40:45], [(Span(0, 5), updates[1])])  # fewer than a window of 32
    torch.testing.assert_close(alone, y[40:45], rtol=0, atol=atol)
    none = project(projection, x, [(SPANS[0], None), (SPANS[1], updates[1]), (SPANS[2], None)])
    torch.testing.assert_close(none[:40].double(), project(projection, x[:40], []).double(), rtol=0, atol=atol)


@torch.no_grad()
def test_small_updates_are_not_lost_to_rounding() -> None:
    """Added to outputs that are rounded already, less than half a step of bf16 would change next to nothing."""
    projection, x, updates = layers(3e-5, torch.bfloat16)
    change = changes(x, updates)
    unchanged = project(projection, x.float(), []).double()
    assert change.std() < 0.002 * unchanged.std()
    kept = project(projection, x, zip(SPANS, updates, strict=True)).double() - unchanged
    added = project(projection, x, []).double().bfloat16() + change.bfloat16() - unchanged
    assert (kept * change).sum() / change.square().sum() == pytest.approx(1, abs=0.3)
    assert (added * change).sum() / change.square().sum() < 0.6
