"""Clips to patches and back: token order (t, h, w), element order (t, h, w, channel) within a patch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int, int]
"""Three sizes or counts in the order time, height, width."""


def token_grid(frames: int, height: int, width: int, patch: Grid) -> Grid:
    """Tokens along (t, h, w). Raises ValueError where the patch does not divide the clip."""
    for name, size, step in zip(("frames", "height", "width"), (frames, height, width), patch, strict=True):
        if step < 1 or size % step:
            raise ValueError(f"a patch of {'x'.join(map(str, patch))} does not divide {size} {name}")
    return frames // patch[0], height // patch[1], width // patch[2]


def patchify(video_btchw: Tensor, patch: Grid) -> Tensor:
    """`[B, T, C, H, W]` to `[B, N, P]` with P = t*h*w*C, of the clip's own type (uint8 stays uint8: a quarter of the
    bytes).
    """
    b, t, c, h, w = video_btchw.shape
    nt, nh, nw = token_grid(t, h, w, patch)
    pt, ph, pw = patch
    # channels last first: what is left to copy then are whole rows of patches
    x = torch.stack(video_btchw.unbind(2), dim=-1).view(b, nt, pt, nh, ph, nw, pw, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, nt * nh * nw, pt * ph * pw * c)


def unpatchify(patches_bnp: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """The inverse of `patchify`: `[B, N, P]` to `[B, T, C, H, W]`."""
    (nt, nh, nw), (pt, ph, pw) = grid, patch
    b, c = patches_bnp.shape[0], patches_bnp.shape[-1] // (pt * ph * pw)
    x = patches_bnp.reshape(b, nt, nh, nw, pt, ph, pw, c)
    return x.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(b, nt * pt, c, nh * ph, nw * pw)


def gather_tokens(x_bnd: Tensor, index_bk: Tensor) -> Tensor:
    """Rows `index_bk` `[B, K]` of `[B, N, D]`, as `[B, K, D]`."""
    rows = torch.arange(x_bnd.shape[0], device=x_bnd.device)[:, None]
    return x_bnd[rows, index_bk]


def resampled(x_bnd: Tensor, old: Grid, new: Grid) -> Tensor:
    """Features `[B, N, D]` of the grid `old` on the grid `new`: linear along time, height and width, each token's place
    being the middle of its patch. The same features where the grids are equal.
    """
    if old == new:
        return x_bnd
    x_bdthw = x_bnd.transpose(1, 2).unflatten(2, old).float()
    resized = F.interpolate(x_bdthw, size=new, mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).contiguous()
