"""What features have to beat, as encoders: random weights of the same shape, pixels, differences of frames, and five
numbers that say how much a clip moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.encoders import FrozenEncoder, Summary, random_like
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
        pixels_bnp = patchify(self._seen(self._smaller(_from_0_to_1(video_btchw))), self.patch)
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


class MotionStatistics(Summary):
    """How much a clip moves: mean, standard deviation, maximum, deviation over time and 99th percentile of the absolute
    difference of neighbouring frames, over all pixels and colours in [0, 1]. The deviation over time is that of the
    mean difference of each two frames.
    """

    name = "motion statistics"
    width = 5

    def __init__(self, clip: ClipShape) -> None:
        self.clip = clip

    def prepare(self, device: str | torch.device, compute: torch.dtype) -> Self:
        """Itself: it works where its clips are, in float32."""
        return self

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """The same numbers `[B, 1, 5]` for each index."""
        statistics_b1d = torch.stack([_motion(video_tchw) for video_tchw in video_btchw])[:, None]
        return [statistics_b1d for _ in indices]


def _motion(video_tchw: Tensor) -> Tensor:
    change_tn = _from_0_to_1(video_tchw).diff(dim=0).abs().flatten(1)
    over_time = change_tn.mean(1).std(correction=0)
    rank = 1 + math.ceil(0.99 * (change_tn.numel() - 1))
    highest = change_tn.flatten().kthvalue(rank).values  # torch.quantile refuses so many numbers
    return torch.stack([change_tn.mean(), change_tn.std(correction=0), change_tn.max(), over_time, highest])


def _from_0_to_1(video: Tensor) -> Tensor:
    return video.float() / 255 if video.dtype == torch.uint8 else video.float()


def baseline_encoders(encoder: FrozenEncoder, seed: int) -> dict[str, FrozenEncoder]:
    """The baselines of an encoder, by name: the same clips and, but for motion statistics, the same grid of tokens. One
    frame has no motion statistics.
    """
    baselines: dict[str, FrozenEncoder] = {
        "random weights": random_like(encoder, seed=seed),
        "raw pixels": PixelEncoder(encoder.clip, encoder.grid),
        "frame differences": DifferenceEncoder(encoder.clip, encoder.grid),
    }
    return baselines | ({MotionStatistics.name: MotionStatistics(encoder.clip)} if encoder.clip.frames > 1 else {})
