"""Softmax attention, as fast as the device at hand allows.

PyTorch's fused kernel does it everywhere but for gradients in bfloat16 on a CPU, where its backward takes several times
as long as its forward. For these, short sequences are written out, which keeps the softmax for backward; long ones go
forward through the fused kernel and recompute the softmax in backward, some heads at a time, and keep nothing of its
size (after FlashAttention, arXiv 2205.14135).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock import torch_private

WRITTEN_OUT = 384**2
"""most values of one head's softmax that are kept for backward (`benchmarks/attention.py`)"""
SCRATCH = 2**21
"""so many values of a softmax are recomputed at a time, or one head's where those are more"""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of queries `[B, heads, Q, D / heads]` and keys and values `[B, heads, K, D / heads]`, scaled by
    1/sqrt(head dim).

    The softmax is computed in float32; on a CPU in bfloat16, with gradients, what goes in and comes out is rounded.
    """
    if not (torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v)
    short = q.shape[-2] * k.shape[-2] <= WRITTEN_OUT
    if (
        short or torch.compiler.is_compiling() or not torch_private.has_attention_sums()
    ):  # compiled code would unroll the loop over heads
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
    out: Tensor = _Recomputed.apply(q, k, v)
    return out


class _Recomputed(torch.autograd.Function):
    """Keeps inputs, output and the logarithm of the softmax's sum for each row; nothing of Q x K."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, log_sum = torch_private.attention_and_sums(q, k, v)
        ctx.save_for_backward(q, k, v, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, log_sum = ctx.saved_tensors
        (grad,), scale, batch = grads, q.shape[-1] ** -0.5, q.shape[:2]
        carried = (grad.float() * out.float()).sum(-1).flatten(0, 1)
        q, k, v, grad = (x.flatten(0, 1) for x in (q * scale, k, v, grad))
        scores = _Difference(q, log_sum.flatten(0, 1), k)
        gains = _Difference(grad, carried, v)
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        queries, keys = q.shape[1], k.shape[1]
        heads = max(1, SCRATCH // (queries * keys))
        scratch = q.new_empty(2, min(heads, len(q)), queries, keys)
        for begin in range(0, len(q), heads):
            part = slice(begin, min(begin + heads, len(q)))
            softmax, slope = scratch[:, : part.stop - begin]
            scores.write(part, softmax).exp_()
            gains.write(part, slope).mul_(softmax)
            torch.bmm(slope, k[part], out=grad_q[part])
            torch.bmm(slope.transpose(1, 2), q[part], out=grad_k[part])
            torch.bmm(softmax.transpose(1, 2), grad[part], out=grad_v[part])
        return grad_q.mul_(scale).unflatten(0, batch), grad_k.unflatten(0, batch), grad_v.unflatten(0, batch)


class _Difference:
    """`a @ b.T - rows`, rounded once: two more columns of `a` hold `rows` rounded, and what the rounding left."""

    def __init__(self, a_hkd: Tensor, rows_hk: Tensor, b_hkd: Tensor) -> None:
        high = rows_hk.to(a_hkd.dtype)
        low = (rows_hk - high).to(a_hkd.dtype)
        self.a = torch.cat([a_hkd, -high[..., None], -low[..., None]], dim=-1)
        self.b = F.pad(b_hkd, (0, 2), value=1.0).transpose(1, 2)

    def write(self, part: slice, out: Tensor) -> Tensor:
        """Those of some heads, into `out`, which is returned."""
        return torch.bmm(self.a[part], self.b[part], out=out)
