"""Attention with gradients on this machine's CPU: PyTorch's fused kernel beside the product written out.

    python benchmarks/attention.py

Prints, for each length, the best of ten forward-and-backward passes of both in milliseconds, and their ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.model.attention import attend


def best_of(run: Callable[[], None], count: int = 10) -> float:
    """Milliseconds of the fastest run, after one that is not counted."""
    run()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times) * 1e3


def main() -> None:
    """A row for each number of tokens."""
    print(f"bfloat16, 3 heads of 64, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("clips tokens    fused    ours  ratio")
    for clips, tokens in ((64, 36), (64, 180), (16, 392), (4, 1568)):
        qkv = torch.randn(clips, tokens, 3, 3, 64, dtype=torch.bfloat16, requires_grad=True)

        def both_ways(attention: Callable[..., Tensor], qkv: Tensor = qkv) -> None:
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
            attention(q, k, v).sum().backward()

        fused = best_of(lambda run=both_ways: run(F.scaled_dot_product_attention))
        written = best_of(lambda run=both_ways: run(attend))
        print(f"{clips:5} {tokens:6} {fused:8.1f} {written:8.1f} {fused / written:6.2f}")


if __name__ == "__main__":
    main()
