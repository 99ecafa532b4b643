"""Where a token is: 3D rotations (RoPE), fixed sin-cos tables, and the token-grid coordinates they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerlock import first_calls  # noqa: F401  same numbers on several threads
from layerlock.model.patches import Grid


def grid_coordinates(grid: Grid) -> Tensor:
    """Positions `[N, 3]` (t, h, w) of all tokens, in token-grid units, in token order (float64)."""
    axes = [torch.arange(n, dtype=torch.float64, device="cpu") for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


@dataclass(frozen=True)
class Rotation:
    """Tables of one rotation, `[N, D]` or gathered `[B, K, D]`; `pairs` per axis; past 2 * sum(pairs) all stays."""

    cos: Tensor
    sin: Tensor  # negative in the first half of each axis's slice
    pairs: tuple[int, ...]

    def at(self, index_bk: Tensor) -> Rotation:
        """The rotation of the tokens `index_bk` `[B, K]`, as `[B, K, D]` tables."""
        return Rotation(self.cos[index_bk], self.sin[index_bk], self.pairs)

    def joined(self, other: Rotation, batch: int) -> Rotation:
        """This rotation's tokens followed by `other`'s, along the token axis."""

        def join(a: Tensor, b: Tensor) -> Tensor:
            a, b = (x.expand(batch, *x.shape[-2:]) for x in (a, b))
            return torch.cat([a, b], dim=1)

        return Rotation(join(self.cos, other.cos), join(self.sin, other.sin), self.pairs)

    def per_head(self) -> Rotation:
        """The same tables with an axis for heads: `[B, 1, K, D]`."""
        return Rotation(self.cos.unsqueeze(-3), self.sin.unsqueeze(-3), self.pairs)


def rotation_table(grid: Grid, width: int, fractions: tuple[float, ...], wavelength: float) -> Rotation:
    """3D RoPE of LayerLock sections 3.1 and A.2.

    Axis a gets `floor(f_a * width / 2)` pairs; pair i of p turns by `position * wavelength ** (-i / p)`; its two
    members are `x[i]` and `x[i + p]` of the axis's slice.
    """
    position_n3 = grid_coordinates(grid)
    pairs = tuple(int(f * width / 2 + 1e-9) for f in fractions)
    cos = torch.ones(len(position_n3), width, dtype=torch.float64, device="cpu")
    sin = torch.zeros_like(cos)
    at = 0
    for axis, p in enumerate(pairs):
        rate_p = wavelength ** (-torch.arange(p, dtype=torch.float64, device="cpu") / max(p, 1))
        angle_np = position_n3[:, axis, None] * rate_p
        cos[:, at : at + 2 * p] = angle_np.cos().repeat(1, 2)
        sin[:, at : at + 2 * p] = torch.cat([-angle_np.sin(), angle_np.sin()], dim=1)
        at += 2 * p
    return Rotation(cos.float(), sin.float(), pairs)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turns each pair of `x` `[..., K, D]` by its angle: `x * cos + swapped(x) * sin`, in the type of the tables."""
    if not x.requires_grad:
        return _turn(x, rotation.cos, rotation.sin, rotation.pairs)
    turned: Tensor = _Rotate.apply(x, rotation.cos, rotation.sin, rotation.pairs)
    return turned


def _turn(x: Tensor, cos: Tensor, sin: Tensor, pairs: tuple[int, ...], sign: int = 1) -> Tensor:
    parts, at = [], 0
    for p in pairs:
        parts += [x[..., at + p : at + 2 * p], x[..., at : at + p]]
        at += 2 * p
    parts.append(x[..., at:])
    return (x * cos).addcmul_(torch.cat(parts, dim=-1), sin, value=sign)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back: nothing of `x` need be kept, and no slice be scattered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, pairs: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.pairs = pairs
        return _turn(x, cos, sin, pairs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, ctx.pairs, sign=-1), None, None, None


SINCOS_WAVELENGTH = 10_000.0
"""of the slowest sine of fixed tables, in tokens over 2 pi"""


def sincos_table(grid: Grid, width: int) -> Tensor:
    """Fixed 3D sin-cos positions `[N, D]`, as in V-JEPA: for each axis a third of the width, rounded up to even; what
    of the last axis is beyond the width is left out.
    """
    position_n3 = grid_coordinates(grid)
    half = -(-width // 6)
    rate = SINCOS_WAVELENGTH ** (-torch.arange(half, dtype=torch.float64, device="cpu") / half)
    angle = position_n3[:, :, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1).reshape(len(position_n3), -1)[:, :width].float()


def sincos_1d_table(tokens: int, width: int) -> Tensor:
    """Fixed sin-cos positions `[N, D]` over the number of a token in token order, as in VideoMAE.

    Dimensions 2 i and 2 i + 1 are the sine and the cosine of `number * 10_000 ** (-2 i / D)`.
    """
    number_n = torch.arange(tokens, dtype=torch.float64, device="cpu")
    dimension_d = torch.arange(width, dtype=torch.float64, device="cpu")
    angle_nd = number_n[:, None] * SINCOS_WAVELENGTH ** (-2 * (dimension_d // 2) / width)
    return torch.where(dimension_d % 2 == 0, angle_nd.sin(), angle_nd.cos()).float()


def fixed_table(position: str, grid: Grid, width: int) -> Tensor | None:
    """The table `[N, D]` of `sincos` or `sincos-1d`, on the CPU; None for a position that is not a fixed table."""
    if position == "sincos":
        return sincos_table(grid, width)
    return sincos_1d_table(grid[0] * grid[1] * grid[2], width) if position == "sincos-1d" else None
