"""Adds the low-rank updates of several adapters to the products of one encoder, each to its own segment of a packed sequence.

    tokens   a a a a b b c c c c .          segments of three adapters; the weights W are shared

    y[segment, layer] = (x[segment] A') B'      two small products a segment; A of the layers that read the same input are stacked
    y += x W' + bias                            one for all

B holds the scale s. Where only first states are read, the last block forms no keys and values (attention.py), and their updates go
with the queries and with the sums over tokens, head by head:

    (W_k + B A)' q = W_k' q + A' (B' q)         (W_v + B A) z = W_v z + B (A z)

The sums are those of the merged weight W + B A, in another order: in fp32 outputs agree to about 1e-6 of their size. In bf16 W and
the update's factors are rounded, where training rounds W + B A; either loses about as much.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distilora.model.adapters.low_rank import SavedUpdate
from distilora.model.packed.attention import attend, sum_tokens
from distilora.model.packed.blocks import Block, add_norm
from distilora.model.packed.layout import ROUND, Packed
from distilora.model.packed.linear import Projection


class Span(NamedTuple):
    """Places of a segment, `start` to `stop` - 1: of tokens in [size, ...], or of rows in [B, ...]."""

    start: int
    stop: int


class Update(NamedTuple):
    """Update of layers that read the same input; each part is a layer's: its columns of y, its columns of u = x A', and B'."""

    a: Tensor  # [sum of r, in]
    parts: tuple[tuple[slice, slice, Tensor], ...]  # B' is [r, out], times s


class HeadUpdate(NamedTuple):
    """Update of a key or value layer, by attention heads, in fp32."""

    a: Tensor  # [r, D]
    b: Tensor  # [heads, d, r], times s


@dataclass(frozen=True)
class BlockUpdates:
    """Updates of one adapter in one block; None where it has none. `query`, `key` and `value` serve first states alone."""

    query_key_value: Update | None = None
    out: Update | None = None
    lin1: Update | None = None
    lin2: Update | None = None
    query: Update | None = None
    key: HeadUpdate | None = None
    value: HeadUpdate | None = None


Segments = Sequence[tuple[Span, BlockUpdates]]  # of the adapters in a batch


def block_updates(updates: dict[str, SavedUpdate], block: Block, dtype: torch.dtype, first: bool) -> BlockUpdates:
    """Arrange the updates of one block, by the names of `BlockParts`, for computing in `dtype`.

    `first`: whether first states may be asked for, as of the last block. Raises ValueError if an update does not fit its layer or
    is not finite.
    """
    query, key, value, out, lin1, lin2 = map(updates.get, ("query", "key", "value", "out", "lin1", "lin2"))
    return BlockUpdates(
        _stacked((query, key, value), block.query_key_value, dtype),
        _stacked((out,), block.out, dtype),
        _stacked((lin1,), block.lin1, dtype),
        _stacked((lin2,), block.lin2, dtype),
        _stacked((query,), block.query, dtype) if first else None,
        _by_heads(key, block.heads) if first else None,
        _by_heads(value, block.heads) if first else None,
    )


def _stacked(updates: Sequence[SavedUpdate | None], projection: Projection, dtype: torch.dtype) -> Update | None:
    stacked, parts, rank, column = [], [], 0, 0
    for update, layer, width in zip(updates, projection.layers, projection.widths, strict=True):
        if update is not None:
            a, b = update.a.float(), update.b.float() * update.scale
            if a.dim() != 2 or a.shape[1] != layer.base.in_features or b.shape != (width, len(a)):
                raise ValueError(
                    f"an update of shapes {list(a.shape)} and {list(b.shape)} beside a weight of {list(layer.base.weight.shape)}"
                )
            if not (a.isfinite().all() and b.isfinite().all()):
                raise ValueError("an update that is not finite")
            parts.append((slice(column, column + width), slice(rank, rank + len(a)), b.t().to(dtype).contiguous()))
            stacked.append(a)
            rank += len(a)
        column += width
    return Update(torch.cat(stacked).to(dtype), tuple(parts)) if stacked else None


def _by_heads(update: SavedUpdate | None, heads: int) -> HeadUpdate | None:
    if update is None:
        return None
    b = update.b.float() * update.scale
    return HeadUpdate(update.a.float().clone(), b.view(heads, len(b) // heads, -1))


def run_block(block: Block, x: Tensor, packed: Packed, segments: Segments) -> Tensor:
    """Compute the states after a block, [size, D]; the segments' spans are of tokens."""
    qkv = project(block.query_key_value, x, ((span, own.query_key_value) for span, own in segments))
    return _rest(block, x, attend(qkv, packed, block.heads), segments)


def run_block_first(block: Block, x: Tensor, packed: Packed, segments: Segments) -> Tensor:
    """Compute the states of the rows' first tokens after a block, [B, D]; the segments' spans are of rows."""
    start = x[packed.starts]
    q = project(block.query, start, ((span, own.query) for span, own in segments))
    return _rest(block, start, _attend_first(block, q, x, packed, segments), segments)


def _attend_first(block: Block, q: Tensor, x: Tensor, packed: Packed, segments: Segments) -> Tensor:
    """Attend from each row's first token to its row, as `attend_first` does: q [B, D], x [size, D] -> [B, D]."""
    count, width = q.shape
    weight, bias = block.key_value.weights(x.dtype)
    keys, values = weight.view(2, block.heads, width // block.heads, width)
    by_head = (q * (width // block.heads) ** -0.5).view(count, block.heads, -1).transpose(0, 1)  # [heads, B, d]
    # so thin products gain nothing from bf16, whose kernels are made for each shape: updates are computed in fp32
    query = q.new_zeros(block.heads, count, width)
    for (start, stop), own in segments:
        if own.key is not None:
            query[:, start:stop] = torch.bmm(by_head[:, start:stop].float(), own.key.b) @ own.key.a
    query = torch.baddbmm(query, by_head, keys).transpose(0, 1).contiguous()  # [B, heads, D]
    summed = sum_tokens(query, x, packed)[0].transpose(0, 1)  # [heads, B, D]
    out = torch.zeros_like(by_head)
    for (start, stop), own in segments:
        if own.value is not None:
            inner = summed[:, start:stop].float() @ own.value.a.t()
            out[:, start:stop] = torch.bmm(inner, own.value.b.transpose(1, 2))
    out = torch.baddbmm(out, summed, values.transpose(1, 2)).transpose(0, 1).reshape(count, width)
    return out if bias is None else out + bias[width:]


def _rest(block: Block, x: Tensor, attended: Tensor, segments: Segments) -> Tensor:
    out = project(block.out, attended, ((span, own.out) for span, own in segments))
    h = add_norm(block.norm1, out, x)
    inner = functional.gelu(project(block.lin1, h, ((span, own.lin1) for span, own in segments)))
    return add_norm(block.norm2, project(block.lin2, inner, ((span, own.lin2) for span, own in segments)), h)


def project(projection: Projection, x: Tensor, updates: Iterable[tuple[Span, Update | None]]) -> Tensor:
    """Compute x W' + bias with every segment's update: [n, in] -> [n, sum of out]."""
    weight, bias = projection.weights(x.dtype)
    present = [(span, update) for span, update in updates if update is not None]
    if not present:
        return functional.linear(x, weight, bias)
    # updates first: x W' is summed onto them in fp32. Added to what is rounded already, less than half a step of bf16 is lost
    y = x.new_zeros(len(x), len(weight))
    for span, update in present:
        _add(y, x, span, update)
    y.addmm_(x, weight.t())
    return y if bias is None else y.add_(bias)


def _add(y: Tensor, x: Tensor, span: Span, update: Update) -> None:
    """Add an update to a segment of y [n, out], from x [n, in].

    In bf16 a kernel is made for each number of rows, in about a millisecond, so a multiple of ROUND is computed: the segment
    with its neighbours, for which u is set to 0, or filled up with zeros.
    """
    start, stop = span
    length = stop - start
    rounded = length if x.dtype == torch.float32 else -(-length // ROUND) * ROUND
    low = min(start, len(x) - rounded)
    if low < 0:
        u = functional.linear(functional.pad(x[start:stop], (0, 0, 0, rounded - length)), update.a)
        for columns, ranks, b in update.parts:
            y[start:stop, columns] += (u[:, ranks] @ b)[:length]
        return
    u = functional.linear(x[low : low + rounded], update.a)
    u[: start - low] = 0
    u[stop - low :] = 0
    for columns, ranks, b in update.parts:
        y[low : low + rounded, columns].addmm_(u[:, ranks], b)
