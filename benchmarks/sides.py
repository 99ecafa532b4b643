"""Two implementations of one training step that take turns, and what is printed of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from measure import device_peak, median_and_range, take_turns
from saved import saved_bytes
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of an encoder, a separate decoder and their square clips; hidden layers are four times as wide."""

    width: int
    depth: int
    heads: int
    size: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    frames: int = 16


@dataclass(frozen=True)
class Side:
    """One implementation: `gradients` runs forward and backward and returns the loss; `after` follows the update."""

    gradients: Callable[[], Any]
    optimizer: torch.optim.Optimizer
    model: nn.Module
    after: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        """One update."""
        self.gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.after()


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """The same optimizer for both sides; its rate is 0, so that both go on computing the same numbers."""
    return torch.optim.AdamW(list(parameters), lr=0.0, weight_decay=0.05, fused=True)


def autocast(device: torch.device, compute: torch.dtype) -> AbstractContextManager[Any]:
    """bfloat16 the way that transformers is trained in it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=compute == torch.bfloat16)


def show_sides(sides: dict[str, Side], batch: int, rounds: int, device: torch.device) -> None:
    """A row for each side; `speed-up` is the second and later sides' time over the first's in the same round."""
    times = take_turns(list(sides.values()), device, rounds)
    print(f"{'':22} clips/s  ms of a step               speed-up of ours      saved MB  peak MB")
    for (name, side), each in zip(sides.items(), times, strict=True):
        ratios = [other / own for other, own in zip(each, times[0], strict=True)]
        saved = saved_bytes(side, [side.model]) / 1e6
        print(
            f"{name:22} {batch / statistics.median(each):7.2f}  {median_and_range((t * 1e3 for t in each), '.1f'):26} "
            f"{median_and_range(ratios) if side is not next(iter(sides.values())) else '':20} {saved:9.1f} "
            f"{device_peak(side, device):>8}",
            flush=True,
        )
