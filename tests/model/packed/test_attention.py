"""Attention of packed rows against the formula, with gradients, however many rows are computed at a time."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from distilora.batching.rows import rows_of
from distilora.model.packed import attention
from distilora.model.packed.layout import Packed

HEADS, WIDTH = 3, 24
LENGTHS = [1, 40, 64, 7, 33, 300, 64, 290, 0, 5]


def packed_rows() -> Packed:
    return Packed(rows_of([[[7] * length] for length in LENGTHS]), torch.device("cpu"))


def by_the_formula(qkv: Tensor, packed: Packed) -> Tensor:
    out = torch.zeros(packed.size, WIDTH, dtype=qkv.dtype)
    start = 0
    for length in LENGTHS:
        row = qkv[start : start + length].view(length, 3, HEADS, WIDTH // HEADS).permute(1, 2, 0, 3)
        q, k, v = row
        p = torch.softmax(q @ k.transpose(1, 2) * (WIDTH // HEADS) ** -0.5, -1)
        out[start : start + length] = (p @ v).transpose(0, 1).reshape(length, WIDTH)
        start += length
    return out


def draw(packed: Packed, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(packed.size, 3 * WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(packed.size, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    weight[packed.total :] = 0
    return qkv.requires_grad_(), weight


@pytest.mark.parametrize("near", [1, 1 << 30], ids=["row by row", "whole groups"])
def test_every_token(near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "NEAR", near)
    packed = packed_rows()
    qkv, weight = draw(packed)
    expected = by_the_formula(qkv, packed)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), qkv)
    attended = attention.attend(qkv, packed, HEADS)
    (attended * weight).sum().backward()
    torch.testing.assert_close(attended[: packed.total], expected[: packed.total])
    torch.testing.assert_close(qkv.grad, gradient)
    with torch.no_grad():
        torch.testing.assert_close(attention.attend(qkv, packed, HEADS), attended.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("biased", [True, False])
def test_first_tokens_without_keys_and_values(biased: bool) -> None:
    packed = packed_rows()
    generator = torch.Generator().manual_seed(4)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, x, weight = random(len(LENGTHS), WIDTH), random(packed.size, WIDTH), random(2 * WIDTH, WIDTH)
    bias = random(2 * WIDTH) if biased else None
    outer = random(len(LENGTHS), WIDTH).detach()
    outer[LENGTHS.index(0)] = 0  # a row without tokens has no first one
    queries = torch.zeros(packed.size, WIDTH, dtype=torch.float64)
    filled = [i for i, length in enumerate(LENGTHS) if length]
    queries = queries.index_put((packed.starts[filled],), q[filled])
    qkv = torch.cat((queries, torch.nn.functional.linear(x, weight, bias)), 1)
    expected = by_the_formula(qkv, packed)[packed.starts[filled]]
    inputs = [q, x, weight, *([bias] if bias is not None else [])]
    gradients = torch.autograd.grad((expected * outer[filled]).sum(), inputs)
    with torch.no_grad():
        attended, saved = attention.attend_first(q, x, weight, bias, packed, HEADS)
        changes = attention.attend_first_backward(outer, saved, weight, packed, HEADS)
        less = attention.attend_first_backward(outer, saved, weight, packed, HEADS, needs_dx=False)
    torch.testing.assert_close(attended[filled], expected.detach())
    for ours, theirs in zip(changes[: len(inputs)], gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert less[1] is None
    for ours, theirs in zip(less[:1] + less[2:], changes[:1] + changes[2:], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_how_many_at_a_time_changes_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_rows()
    results = []
    for near in (1, 1 << 14, 1 << 30):
        monkeypatch.setattr(attention, "NEAR", near)
        qkv, weight = draw(packed, dtype)
        out = attention.attend(qkv, packed, HEADS)
        (out * weight).sum().backward()
        assert qkv.grad is not None
        results.append((out.detach(), qkv.grad))
    for out, gradient in results[1:]:
        torch.testing.assert_close(out, results[0][0], rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-6)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-5 if dtype == torch.float32 else 3e-2, atol=1e-5)


@pytest.mark.parametrize("has", ["none", "no window", "all of it"])
def test_the_kernel_of_cuda_is_one_that_there_is(
    has: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
        raise AssertionError

    def of_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        raise AssertionError

    kernel = {"no window": of_2_10, "all of it": of_2_11}.get(has)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", kernel and SimpleNamespace(varlen_attn=kernel))
    attention.varlen_kernel.cache_clear()
    try:
        kernels = [attention.varlen_kernel() for _ in range(2)]
    finally:
        attention.varlen_kernel.cache_clear()
    assert kernels == ([of_2_11] * 2 if has == "all of it" else [None] * 2)
    said = capsys.readouterr().err
    assert said.count("has no attention for packed rows on CUDA") == (has != "all of it")  # and once


def test_this_pytorch_has_the_kernel() -> None:
    attention.varlen_kernel.cache_clear()
    assert attention.varlen_kernel() is not None
