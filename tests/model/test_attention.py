"""Attention with gradients in bfloat16 on a CPU against PyTorch's in float32, and what it keeps for backward."""

from __future__ import annotations

import math

import pytest
import torch
from saved import saved_bytes
from torch import Tensor
from torch.nn import functional as F

from layerlock.model import attention
from layerlock.model.attention import WRITTEN_OUT, attend

LONG = math.isqrt(WRITTEN_OUT) + 6


def inputs(tokens: int, heads: int = 3, queries: int | None = None) -> list[Tensor]:
    """Queries, keys and values whose softmax is far from even, as bfloat16 holds them; and a gradient."""
    generator, asking = torch.Generator().manual_seed(0), queries or tokens
    counts = (asking, tokens, tokens, asking)
    return [torch.randn(2, heads, n, 16, generator=generator).mul(2).bfloat16().float() for n in counts]


def results(inputs: list[Tensor], dtype: torch.dtype, how: object) -> list[Tensor]:
    """Output and gradients, in float32."""
    *qkv, grad = (x.detach().to(dtype, copy=True) for x in inputs)
    for x in qkv:
        x.requires_grad_()
    out = how(*qkv)
    assert out.dtype == dtype
    out.backward(grad)
    return [out.detach().float(), *(x.grad.float() for x in qkv)]


@pytest.mark.parametrize(("tokens", "queries"), [(9, 9), (LONG, LONG), (9, 4), (LONG, 2 * LONG), (2 * LONG, LONG)])
@pytest.mark.parametrize("scratch", [1, 2 * LONG**2, 2**30])
def test_bfloat16_is_float32_rounded_with_its_gradients(
    tokens: int, queries: int, scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SCRATCH", scratch)
    given = inputs(tokens, queries=queries)
    wanted = results(given, torch.float32, F.scaled_dot_product_attention)
    found = results(given, torch.bfloat16, attend)
    for a, b in zip(wanted, found, strict=True):
        assert (a - b).norm() < 0.02 * a.norm()


def test_long_sequences_keep_nothing_of_the_size_of_the_softmax() -> None:
    *qkv, grad = (x.bfloat16() for x in inputs(LONG, heads=1))
    for x in qkv:
        x.requires_grad_()
    kept = saved_bytes(lambda: attend(*qkv).backward(grad), [])
    assert 0 < kept < 2 * LONG * (4 * 16 * 2 + 2 * 4)
    assert kept < 2 * LONG**2
