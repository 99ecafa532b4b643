"""What features have to beat: random weights of the same shape, pixels, and differences of frames, as encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.encoders import FrozenEncoder, random_like
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape
from layerlock.model.patches import Grid, patchify
from layerlock.model.position import sincos_table

SIDE = 4
"""A token of pixels is so many high and wide, averaged from all of its patch."""
POSITION = 48
"""numbers beside the pixels that say where a token is: without them a readout could not tell left from right"""


class PixelEncoder:
    """Patches of pixels in [0, 1], made smaller, with their place beside them: one "block", no weights."""

    name = "raw pixels"

    def __init__(self, clip: ClipShape, grid: Grid) -> None:
        frames = clip.frames // grid[0]
        if frames * grid[0] != clip.frames:
            raise LayerlockError(f"baselines: {grid[0]} tokens in time do not divide {clip.frames} frames")
        self.clip, self.grid, self.depth = clip, grid, 1
        self.patch: Grid = (frames, SIDE, SIDE)
        self.width = frames * SIDE * SIDE * 3 + POSITION
        self._position_np = sincos_table(grid, POSITION)

    def prepare(self, device: str | torch.device, compute: torch.dtype) -> Self:
        """Itself: it works where its clips are, in float32."""
        return self

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The same tokens `[B, N, D]` for each index."""
        x_btchw = video_btchw.float() / 255 if video_btchw.dtype == torch.uint8 else video_btchw.float()
        pixels_bnp = patchify(self._seen(self._smaller(x_btchw)), self.patch)
        position_np = self._position_np.to(pixels_bnp.device)
        features_bnd = torch.cat([pixels_bnp, position_np.expand(len(pixels_bnp), *position_np.shape)], -1)
        return [features_bnd for _ in indices]

    def _smaller(self, x_btchw: Tensor) -> Tensor:
        size = (self.grid[1] * SIDE, self.grid[2] * SIDE)
        return F.interpolate(x_btchw.flatten(0, 1), size=size, mode="area").unflatten(0, x_btchw.shape[:2])

    def _seen(self, x_btchw: Tensor) -> Tensor:
        return x_btchw


class DifferenceEncoder(PixelEncoder):
    """The same of what changes from each frame to the next; the last frame's is zero."""

    name = "frame differences"

    def _seen(self, x_btchw: Tensor) -> Tensor:
        return F.pad(x_btchw.diff(dim=1), (0, 0, 0, 0, 0, 0, 0, 1))


def baseline_encoders(encoder: FrozenEncoder, seed: int) -> dict[str, FrozenEncoder]:
    """The baselines of an encoder, by name: the same clips, the same grid of tokens."""
    return {
        "random weights": random_like(encoder, seed=seed),
        "raw pixels": PixelEncoder(encoder.clip, encoder.grid),
        "frame differences": DifferenceEncoder(encoder.clip, encoder.grid),
    }
