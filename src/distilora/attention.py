"""Attention within each row of a packed sequence:  softmax(Q K' / sqrt(d)) V, computed by groups of rows (packing.py).

Two ways in. `attend` and `attend_first` have a backward pass of their own, which keeps the probabilities and no other
intermediate; the second asks for each row's first token alone. `packed_attention` is the same for Transformers'
modules, by its attention registry, with dropout and sliding windows; on CUDA it is PyTorch's `varlen_attn`.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop

from distilora.packing import Group, Packed

REGISTERED = "distilora_packed"
NEAR = 2 << 20  # bytes of probabilities computed at a time: about a core's second-level cache (LOG.md)


def attend(qkv: Tensor, packed: Packed, heads: int) -> Tensor:
    """Attention of every token to its row; queries, keys and values side by side, [size, 3 D] -> [size, D]."""
    return cast(Tensor, cast(Any, _Attend).apply(None, qkv, packed, heads))


def attend_first(q: Tensor, kv: Tensor, packed: Packed, heads: int) -> Tensor:
    """Attention of each row's first token to its row; [B, D] queries, keys and values [size, 2 D] -> [B, D]."""
    return cast(Tensor, cast(Any, _Attend).apply(q, kv, packed, heads))


class _Attend(torch.autograd.Function):
    """`first` are queries of the first tokens, [B, D], or None: then `joined` holds the queries, too."""

    @staticmethod
    def forward(ctx: Any, first: Tensor | None, joined: Tensor, packed: Packed, heads: int) -> Tensor:
        parts = 3 if first is None else 2
        width = joined.shape[1] // parts
        out = joined.new_zeros(joined.shape[0] if first is None else first.shape[0], width)
        ctx.packed, ctx.heads, ctx.parts = packed, heads, parts
        kept: list[Tensor] = []
        keeps = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        for group in packed.groups:
            split = _split(joined, group, parts, heads)
            q, k, v = split if first is None else (first[group.rows].view(split.shape[1], 1, -1), *split)
            q.mul_(q.shape[2] ** -0.5)
            chunks = _chunks(q, k, heads)
            p = q.new_empty(len(q) if keeps else chunks[0].stop, q.shape[1], group.longest)
            found = torch.empty_like(q)
            for some in chunks:
                now = p[some] if keeps else p[: some.stop - some.start]
                torch.bmm(q[some], k[some].transpose(1, 2), out=now)
                _hide_padding(now, group.lengths[some.start // heads : some.stop // heads], heads)
                torch.softmax(now, -1, out=now)
                torch.bmm(now, v[some], out=found[some])
            if first is None:
                _join(found[None], group, heads, out)
            else:
                out[group.rows] = found.view(-1, width)
            if keeps:
                kept += [q, k, v, p]
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (outer,) = gradients
        packed, heads, parts = cast(Packed, ctx.packed), cast(int, ctx.heads), cast(int, ctx.parts)
        width = outer.shape[1]
        joined = outer.new_zeros(packed.size, parts * width)
        first = None if parts == 3 else torch.zeros_like(outer)
        saved = ctx.saved_tensors
        for number, group in enumerate(packed.groups):
            q, k, v, p = saved[4 * number : 4 * number + 4]
            do = _split(outer, group, 1, heads)[0] if first is None else outer[group.rows].view(q.shape)
            changes = k.new_empty(parts, *k.shape)
            dq, dk, dv = changes if first is None else (torch.empty_like(q), *changes)
            for some in _chunks(q, k, heads):
                torch.bmm(p[some].transpose(1, 2), do[some], out=dv[some])
                dp = torch.bmm(do[some], v[some].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p[some], -1, p.dtype)  # p * (dp - sum(p * dp))
                torch.bmm(ds, k[some], out=dq[some])
                torch.bmm(ds.transpose(1, 2), q[some], out=dk[some])
            dq.mul_(q.shape[2] ** -0.5)
            if first is not None:
                first[group.rows] = dq.view(-1, width)
            _join(changes, group, heads, joined)
        return first, joined, None, None


def _chunks(q: Tensor, k: Tensor, heads: int) -> list[slice]:
    """Parts of [B * heads, ...] of whole rows, whose probabilities stay near the processor."""
    each = heads * max(1, NEAR // (heads * q.shape[1] * k.shape[1] * q.element_size()))
    return [slice(start, min(start + each, len(q))) for start in range(0, len(q), each)]


def _split(tokens: Tensor, group: Group, parts: int, heads: int) -> Tensor:
    """The group's rows of [size, parts * D], zeros for padding: [parts, B * heads, longest, d]."""
    count, width = len(group.lengths), tokens.shape[1] // parts // heads
    new = tokens.new_empty if group.inside is None else tokens.new_zeros
    found = new(parts, count, heads, group.longest, width)
    for i, (start, length) in enumerate(zip(group.starts, group.lengths, strict=True)):
        found[:, i, :, :length] = tokens[start : start + length].view(length, parts, heads, width).permute(1, 2, 0, 3)
    return found.view(parts, count * heads, group.longest, width)


def _join(split: Tensor, group: Group, heads: int, tokens: Tensor) -> None:
    """The reverse, into [size, parts * D]."""
    parts, _, _, width = split.shape
    for i, (start, length) in enumerate(zip(group.starts, group.lengths, strict=True)):
        row = split[:, i * heads : (i + 1) * heads, :length].permute(2, 0, 1, 3)
        tokens[start : start + length].view(length, parts, heads, width).copy_(row)


def _hide_padding(scores: Tensor, lengths: tuple[int, ...], heads: int) -> None:
    """No weight on padding: -inf beyond each row's length; [rows * heads, queries, longest]."""
    for i, length in enumerate(lengths):
        if length < scores.shape[2]:
            scores[i * heads : (i + 1) * heads, :, length:] = -torch.inf


def packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, packed: Packed | None = None,
    sliding_window: int | None = None, **unused: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As Transformers calls it: [1, heads, size, d] each -> [1, size, heads, d]; `packed` comes through the model's kwargs.

    Raises ValueError without `packed`: then the model was not called by `Network.encode`.
    """
    if packed is None:
        raise ValueError(f"attention {REGISTERED!r} needs the layout of packed rows; call Network.encode")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # [size, heads, d]
    if q.is_cuda and not dropout and q.dtype in (torch.float16, torch.bfloat16):
        return _varlen(q, k, v, packed, scale, sliding_window)[None], None
    out = torch.zeros_like(q)
    for group in packed.groups:
        shape = (len(group.lengths), group.longest, *q.shape[1:])
        qg, kg, vg = (part[group.index].view(shape).transpose(1, 2) for part in (q, k, v))  # [B, heads, L, d]
        scores = torch.matmul(qg, kg.transpose(2, 3)) * scale
        mask = _mask(group, sliding_window, scores.device)
        if mask is not None:
            scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
        p = drop(torch.softmax(scores, -1), dropout, module.training)
        result = torch.matmul(p, vg).transpose(1, 2).reshape(-1, *q.shape[1:])
        out = out.index_copy(0, group.tokens, result if group.inside is None else result[group.inside])
    return out[None], None


def _mask(group: Group, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """True where no attention goes: padding, and tokens further away than the window. [B, 1, 1 or L, L] or None."""
    if group.inside is None and sliding_window is None:
        return None
    place = torch.arange(group.longest, device=device)
    mask = (place[None] >= torch.tensor(group.lengths, device=device)[:, None])[:, None, None]
    if sliding_window is not None:
        mask = mask | ((place[:, None] - place[None]).abs() >= sliding_window)
    return mask


def _varlen(q: Tensor, k: Tensor, v: Tensor, packed: Packed, scale: float, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = int(packed.lengths.max(initial=0))
    reach = (-1, -1) if window is None else (window - 1, window - 1)
    found = varlen_attn(
        q[: packed.total], k[: packed.total], v[: packed.total], packed.bounds, packed.bounds, longest, longest,
        scale=scale, window_size=reach,
    )  # fmt: skip
    return torch.nn.functional.pad(cast(Tensor, found), (0, 0, 0, 0, 0, packed.size - packed.total))


def register() -> None:
    """Makes `packed_attention` known to Transformers under the name REGISTERED; it builds no mask."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(REGISTERED, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(REGISTERED, lambda *args, **kwargs: None)
