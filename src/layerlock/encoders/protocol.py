"""What is asked of a frozen encoder; `layerlock.model.encoder.Encoder` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from layerlock.model.encoder import ClipShape
from layerlock.model.patches import Grid


class FrozenEncoder(Protocol):
    """Clips in, features of any depth out, nothing to train."""

    name: str
    """what it was opened by"""
    clip: ClipShape
    """the clips it takes"""

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width; N is their product."""
        ...

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        ...

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        ...

    def prepare(self, device: str | torch.device, compute: torch.dtype) -> Self:
        """Moves to `device` and computes in `compute` from now on; weights are cast once. Returns itself."""
        ...

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Features `[B, N, D]` after each of the blocks `indices` (0: projected patches, L: the last), tokens in the
        order (t, h, w), in the compute type.

        Clips are `[B, T, 3, H, W]`, uint8 or float in [0, 1], of the shape `clip`. Runs no deeper than asked and never
        with a graph. The output of the last block comes with the model's final norm where it has one; those of
        earlier blocks are as the blocks return them. Raises LayerlockError for clips of another shape or type and for
        depths that are not there.
        """
        ...


@runtime_checkable
class AttentionEncoder(FrozenEncoder, Protocol):
    """A `FrozenEncoder` that tells where its blocks look."""

    def queries_and_keys(self, block: int, x_bnd: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `[B, heads, N, D / heads]` of a block (1: the first) with their positions, from its input
        `[B, N, D]`, the features of the depth before. Weights are the softmax of their products over
        sqrt(D / heads).
        """
        ...


class Summary:
    """Base of encoders that give a few numbers of a whole clip: one token `[B, 1, D]` after their one "block".

    Each number has a unit of its own and says something by its size. So nothing standardises them clip by clip, and
    only solved readouts of a class or a number, which standardise each over clips, read them.
    """

    grid: Grid = (1, 1, 1)
    depth = 1
