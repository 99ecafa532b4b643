"""Clips of which one patch is seen, so that what is known from anywhere else is lost."""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock import draws

GRID = 8
"""patches along a side: 16 pixels of the 128 in blockwise learning (arXiv 2601.09040)"""


def one_patch(video_btchw: Tensor, index_b: Tensor, seed: int, *, parts: int = 1) -> Tensor:
    """The clips `[B, T, 3, S, S]` black but for one patch at a random place, the same in all frames: one of GRID x GRID
    in each of so many vertical parts of the frame. The places follow from the seed and `index_b` `[B]` alone.
    """
    wide = GRID // parts
    down_bp, across_bp = draws.uniform(seed, "analyze/patch", index_b, 2 * parts).view(-1, 2, parts).unbind(1)
    row_bp = (down_bp * GRID).long()
    column_bp = (across_bp * wide).long() + wide * torch.arange(parts, device=index_b.device)
    seen_bgg = torch.zeros(len(index_b), GRID, GRID, dtype=torch.bool, device=index_b.device)
    seen_bgg[torch.arange(len(index_b), device=index_b.device)[:, None], row_bp, column_bp] = True
    patch_s = torch.arange(video_btchw.shape[-1], device=index_b.device) * GRID // video_btchw.shape[-1]
    seen_bss = seen_bgg[:, patch_s[:, None], patch_s].to(video_btchw.device)
    return video_btchw * seen_bss[:, None, None]
