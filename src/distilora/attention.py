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
        scale = (width // heads) ** -0.5
        for group in packed.groups:
            count = len(group.lengths)
            split = _split(joined.index_select(0, group.index), count, parts, heads)  # [parts, B * heads, longest, d]
            q = split[0] if first is None else _split(first[group.rows], count, 1, heads)[0]
            q = q.mul_(scale)
            k, v = split[-2], split[-1]
            p = _probabilities(q, k, group, heads)
            _put(out, _join(torch.bmm(p, v)[None], count), group, first is None)
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                kept += [q, k, v, p]
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (outer,) = gradients
        packed, heads, parts = cast(Packed, ctx.packed), cast(int, ctx.heads), cast(int, ctx.parts)
        width = outer.shape[1]
        scale = (width // heads) ** -0.5
        joined = outer.new_zeros(packed.size, parts * width)
        first = None if parts == 3 else torch.zeros_like(outer)
        saved = ctx.saved_tensors
        for number, group in enumerate(packed.groups):
            q, k, v, p = saved[4 * number : 4 * number + 4]
            count = len(group.lengths)
            do = _split(_take(outer, group, first is None), count, 1, heads)[0]
            dv = torch.bmm(p.transpose(1, 2), do)
            dp = torch.bmm(do, v.transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)  # p * (dp - sum(p * dp))
            dq = torch.bmm(ds, k).mul_(scale)
            dk = torch.bmm(ds.transpose(1, 2), q)
            if first is None:
                _put(joined, _join(torch.stack((dq, dk, dv)), count), group, True)
            else:
                first[group.rows] = _join(dq[None], count)
                _put(joined, _join(torch.stack((dk, dv)), count), group, True)
        return first, joined, None, None


def _split(tokens: Tensor, count: int, parts: int, heads: int) -> Tensor:
    """[B * L, parts * D] -> [parts, B * heads, L, d], in memory of its own."""
    length, width = tokens.shape[0] // count, tokens.shape[1] // parts
    split = tokens.view(count, length, parts, heads, width // heads).permute(2, 0, 3, 1, 4)
    return split.contiguous().view(parts, count * heads, length, width // heads)


def _join(split: Tensor, count: int) -> Tensor:
    """The reverse: [parts, B * heads, L, d] -> [B * L, parts * D]."""
    parts, both, length, size = split.shape
    joined = split.view(parts, count, both // count, length, size).permute(1, 3, 0, 2, 4)
    return joined.reshape(count * length, parts * (both // count) * size)


def _probabilities(q: Tensor, k: Tensor, group: Group, heads: int) -> Tensor:
    """softmax(q k'), [B * heads, queries, longest], nothing on padding; q is scaled already."""
    scores = torch.bmm(q, k.transpose(1, 2))
    for i, length in enumerate(group.lengths):
        if length < group.longest:
            scores[i * heads : (i + 1) * heads, :, length:] = -torch.inf
    return torch.softmax(scores, -1)


def _put(out: Tensor, padded: Tensor, group: Group, every_token: bool) -> None:
    """Padded results into their places: of every token, or of each row."""
    if not every_token:
        out[group.rows] = padded
    else:
        out[group.tokens] = padded if group.inside is None else padded[group.inside]


def _take(outer: Tensor, group: Group, every_token: bool) -> Tensor:
    """The padded view of gradients, zero on padding."""
    if not every_token:
        return outer[group.rows]
    if group.inside is None:
        return outer[group.index]
    padded = outer.new_zeros(len(group.index), outer.shape[1])
    padded[group.inside] = outer[group.tokens]
    return padded


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
