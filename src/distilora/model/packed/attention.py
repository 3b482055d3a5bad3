"""Attention within each row of a packed sequence:  softmax(Q K' / sqrt(d)) V, computed by groups of rows (model/packed/layout.py).

Three ways in. `attend` has a backward pass of its own, which keeps queries, keys, values and probabilities.
`attend_first` and `attend_first_backward` ask for each row's first token alone, and then need no keys and values: a token x
enters by the queries' product with the keys' weights, and the values' weights come after the sum over tokens,

    q' (W_k x) = (W_k' q)' x        sum_t p_t (W_v x_t) = W_v sum_t p_t x_t

(a key's bias adds the same to all scores of a row and changes no probability). `packed_attention` is for Transformers'
modules, by its attention registry, with dropout and sliding windows; on CUDA it is PyTorch's `varlen_attn`, where there is one.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop

from distilora.model.packed.layout import Group, Packed
from distilora.progress import say

REGISTERED = "distilora_packed"
# Bytes of probabilities computed at a time: about a core's second-level cache (LOG.md: Attention by chunks).
NEAR = 2 << 20


def attend(qkv: Tensor, packed: Packed, heads: int) -> Tensor:
    """Attend from every token to its row; queries, keys and values side by side, [size, 3 D] -> [size, D]."""
    return cast(Tensor, cast(Any, _Attend).apply(qkv, packed, heads))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor, packed: Packed, heads: int) -> Tensor:
        out = joined.new_zeros(joined.shape[0], joined.shape[1] // 3)
        ctx.packed, ctx.heads = packed, heads
        saved: list[Tensor] = []
        needs_backward = ctx.needs_input_grad[0]
        for group in packed.groups:
            q, k, v = _split(joined, group, 3, heads)
            q.mul_(q.shape[2] ** -0.5)
            chunks = _chunks(q, heads)
            p = q.new_empty(len(q) if needs_backward else chunks[0].stop, group.longest, group.longest)
            attended = torch.empty_like(q)
            for chunk in chunks:
                scores = p[chunk] if needs_backward else p[: chunk.stop - chunk.start]
                torch.bmm(q[chunk], k[chunk].transpose(1, 2), out=scores)
                _hide_padding(scores, group.lengths[chunk.start // heads : chunk.stop // heads], heads)
                torch.softmax(scores, -1, out=scores)
                torch.bmm(scores, v[chunk], out=attended[chunk])
            _join(attended[None], group, heads, out)
            if needs_backward:
                saved += [q, k, v, p]
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (dout,) = gradients
        packed, heads = cast(Packed, ctx.packed), cast(int, ctx.heads)
        djoined = dout.new_zeros(packed.size, 3 * dout.shape[1])
        saved = ctx.saved_tensors
        for number, group in enumerate(packed.groups):
            q, k, v, p = saved[4 * number : 4 * number + 4]
            do = _split(dout, group, 1, heads)[0]
            dqkv = k.new_empty(3, *k.shape)
            dq, dk, dv = dqkv
            for chunk in _chunks(q, heads):
                torch.bmm(p[chunk].transpose(1, 2), do[chunk], out=dv[chunk])
                dp = torch.bmm(do[chunk], v[chunk].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p[chunk], -1, p.dtype)  # p * (dp - sum(p * dp))
                torch.bmm(ds, k[chunk], out=dq[chunk])
                torch.bmm(ds.transpose(1, 2), q[chunk], out=dk[chunk])
            dq.mul_(q.shape[2] ** -0.5)
            _join(dqkv, group, heads, djoined)
        return djoined, None, None


def attend_first(
    q: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed, heads: int
) -> tuple[Tensor, list[Tensor]]:
    """Attend from each row's first token to its row, outside autograd; return [B, D] and the tensors saved for the backward pass.

    Args:
        q: queries of the first tokens, [B, D].
        x: the block's input, [size, D].
        weight, bias: of keys and values, one below the other, [2 D, D] and [2 D].
    """
    count, width = q.shape
    keys, values = weight.view(2, heads, width // heads, width)
    by_head = (q * (width // heads) ** -0.5).view(count, heads, -1).transpose(0, 1)  # [heads, B, d]
    query = torch.bmm(by_head, keys).transpose(0, 1).contiguous()  # W_k' q, [B, heads, D]
    summed, saved = sum_tokens(query, x, packed)
    out = torch.bmm(summed.transpose(0, 1), values.transpose(1, 2)).transpose(0, 1).reshape(count, width)
    if bias is not None:
        out += bias[width:]
    return out, [by_head, query, summed, *saved]


def sum_tokens(query: Tensor, x: Tensor, packed: Packed) -> tuple[Tensor, list[Tensor]]:
    """Sum each row's tokens, weighted by their probabilities p = softmax(query x'):  sum_t p_t x_t, [B, heads, D].

    `query` is [B, heads, D], x [size, D]. Returned with them: the tokens and the probabilities of each group of rows.
    """
    summed = torch.zeros_like(query)
    saved = []
    for group in packed.groups:
        tokens = x.index_select(0, group.index).view(len(group.lengths), group.longest, x.shape[1])
        scores = torch.bmm(query[group.rows], tokens.transpose(1, 2))
        _hide_padding(scores, group.lengths, 1)
        p = torch.softmax(scores, -1)  # [B, heads, longest]
        summed[group.rows] = torch.bmm(p, tokens)
        saved += [tokens, p]
    return summed, saved


def attend_first_backward(
    dout: Tensor, saved: Sequence[Tensor], weight: Tensor, packed: Packed, heads: int, needs_dx: bool = True
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Compute the gradients of q [B, D], x [size, D] (or None), weight [2 D, D] and bias [2 D] from the result's, `dout` [B, D]."""
    by_head, query, summed, *by_group = saved
    count, width = dout.shape
    size = width // heads
    keys, values = weight.view(2, heads, size, width)
    do = dout.view(count, heads, size).transpose(0, 1)  # [heads, B, d]
    dsummed = torch.bmm(do, values).transpose(0, 1).contiguous()  # [B, heads, D]
    dquery = torch.zeros_like(query)
    dx = dout.new_zeros(packed.size, width) if needs_dx else None
    for number, group in enumerate(packed.groups):
        tokens, p = by_group[2 * number : 2 * number + 2]
        dz = dsummed[group.rows]
        ds = torch._softmax_backward_data(torch.bmm(dz, tokens.transpose(1, 2)), p, -1, p.dtype)
        dquery[group.rows] = torch.bmm(ds, tokens)
        if dx is None:
            continue
        dtokens = torch.bmm(torch.cat((p, ds), 1).transpose(1, 2), torch.cat((dz, query[group.rows]), 1))
        flat = dtokens.view(-1, width)
        dx[group.tokens] = flat if group.inside is None else flat[group.inside]
    dq = torch.bmm(dquery.transpose(0, 1), keys.transpose(1, 2)).transpose(0, 1).reshape(count, width) * size**-0.5
    dkeys = torch.bmm(by_head.transpose(1, 2), dquery.transpose(0, 1))
    dvalues = torch.bmm(do.transpose(1, 2), summed.transpose(0, 1))
    dbias = torch.cat((torch.zeros_like(dout[0]), dout.sum(0)))
    return dq, dx, torch.cat((dkeys, dvalues)).view(2 * width, width), dbias


def _chunks(q: Tensor, heads: int) -> list[slice]:
    """Cut [B * heads, ...] into chunks of whole rows whose probabilities fit in a core's cache."""
    each = heads * max(1, NEAR // (heads * q.shape[1] ** 2 * q.element_size()))
    return [slice(start, min(start + each, len(q))) for start in range(0, len(q), each)]


def _split(tokens: Tensor, group: Group, parts: int, heads: int) -> Tensor:
    """Gather the group's rows of [size, parts * D], padded with zeros: [parts, B * heads, longest, d]."""
    count, width = len(group.lengths), tokens.shape[1] // parts // heads
    new = tokens.new_empty if group.inside is None else tokens.new_zeros
    split = new(parts, count, heads, group.longest, width)
    for i, (start, length) in enumerate(zip(group.starts, group.lengths, strict=True)):
        split[:, i, :, :length] = tokens[start : start + length].view(length, parts, heads, width).permute(1, 2, 0, 3)
    return split.view(parts, count * heads, group.longest, width)


def _join(split: Tensor, group: Group, heads: int, tokens: Tensor) -> None:
    """Undo `_split`, writing into [size, parts * D]."""
    parts, _, _, width = split.shape
    for i, (start, length) in enumerate(zip(group.starts, group.lengths, strict=True)):
        row = split[:, i * heads : (i + 1) * heads, :length].permute(2, 0, 1, 3)
        tokens[start : start + length].view(length, parts, heads, width).copy_(row)


def _hide_padding(scores: Tensor, lengths: tuple[int, ...], heads: int) -> None:
    """Set scores [rows * heads, queries, longest] to -inf beyond each row's length."""
    for i, length in enumerate(lengths):
        if length < scores.shape[2]:
            scores[i * heads : (i + 1) * heads, :, length:] = -torch.inf


def packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, packed: Packed | None = None,
    sliding_window: int | None = None, **unused: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend as Transformers asks: [1, heads, size, d] each -> [1, size, heads, d]; `packed` comes through the model's kwargs.

    Raises ValueError without `packed`: then the model was not called by `Network.encode`.
    """
    if packed is None:
        raise ValueError(f"attention {REGISTERED!r} needs the layout of packed rows; call Network.encode")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # [size, heads, d]
    if q.is_cuda and not dropout and q.dtype in (torch.float16, torch.bfloat16) and (kernel := varlen_kernel()):
        return _varlen(kernel, q, k, v, packed, scale, sliding_window)[None], None
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
    """Build the mask of padding and of tokens beyond the window, True where no attention goes: [B, 1, 1 or L, L], or None."""
    if group.inside is None and sliding_window is None:
        return None
    place = torch.arange(group.longest, device=device)
    mask = (place[None] >= torch.tensor(group.lengths, device=device)[:, None])[:, None, None]
    if sliding_window is not None:
        mask = mask | ((place[:, None] - place[None]).abs() >= sliding_window)
    return mask


@cache
def varlen_kernel() -> Callable[..., Any] | None:
    """Return PyTorch's `varlen_attn`; None, with a note, where it is missing (before 2.10) or has no window (before 2.11)."""
    try:
        kernel: Callable[..., Any] = importlib.import_module("torch.nn.attention.varlen").varlen_attn
        if {"scale", "window_size"} <= inspect.signature(kernel).parameters.keys():
            return kernel
    except (ImportError, AttributeError):
        pass
    say(f"note: PyTorch {torch.__version__} has no attention for packed rows on CUDA; they are computed by groups, which is "
        "slower. PyTorch 2.11 or later has it.")  # fmt: skip
    return None


def _varlen(
    kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, packed: Packed, scale: float, window: int | None
) -> Tensor:
    longest = int(packed.lengths.max(initial=0))
    reach = (-1, -1) if window is None else (window - 1, window - 1)
    out = kernel(
        q[: packed.total], k[: packed.total], v[: packed.total], packed.bounds, packed.bounds, longest, longest,
        scale=scale, window_size=reach,
    )  # fmt: skip
    return torch.nn.functional.pad(cast(Tensor, out), (0, 0, 0, 0, 0, packed.size - packed.total))


def register() -> None:
    """Register `packed_attention` with Transformers under the name REGISTERED, without a mask."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(REGISTERED, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(REGISTERED, lambda *args, **kwargs: None)
