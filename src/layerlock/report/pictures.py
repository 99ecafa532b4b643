"""Clips and tokens as pictures: masked input, reconstruction, features in PCA colours, all as PNG within the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.model.patches import Grid, patchify, unpatchify

GREY = 205
"""What cannot be seen, or is not predicted."""
FRAMES = 4
"""Frames shown of a clip."""
SIDE = 96
"""A frame is shown at most so many pixels high and wide."""


def pick_frames(frames: int, count: int = FRAMES) -> list[int]:
    """At most `count` frame numbers, evenly spread, first and last among them."""
    count = min(count, frames)
    return [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]


def as_bytes(video: Tensor) -> Tensor:
    """Pixels as uint8; floats are taken as [0, 1] and clipped, what is not a number becomes black."""
    if video.dtype == torch.uint8:
        return video
    return (video.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def masked_input(video_btchw: Tensor, context_bk: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """The clip as the encoder sees it, uint8: patches at `context_bk` as they are, all others grey."""
    patches_bnp = patchify(as_bytes(video_btchw), patch)
    shown_bn = torch.zeros(patches_bnp.shape[:2], dtype=torch.bool).scatter_(1, context_bk, True)
    return unpatchify(patches_bnp.where(shown_bn[..., None], torch.full_like(patches_bnp, GREY)), grid, patch)


def reconstruction(predicted_bnp: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """Predicted patches `[B, N, P]` as a clip, uint8 `[B, T, C, H, W]`."""
    return unpatchify(as_bytes(predicted_bnp), grid, patch)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """A map from features to colours: three directions, and the range along each that fills the scale."""

    mean_d: Tensor
    axes_d3: Tensor
    low_3: Tensor
    high_3: Tensor

    def paint(self, x: Tensor) -> Tensor:
        """uint8 colours `[..., 3]` of features `[..., D]`, clipped to the range; what is not a number is grey."""
        at = (x.double() - self.mean_d) @ self.axes_d3
        width = self.high_3 - self.low_3
        flat = width <= 1e-12
        share = torch.where(flat, 0.5, (at - self.low_3) / width.masked_fill(flat, 1.0))
        colour = (share.nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return colour.masked_fill(~x.isfinite().all(-1, keepdim=True), GREY)


def fit_palette(x: Tensor, follow: Tensor | None = None) -> Palette:
    """The palette of features `[..., D]`: their first three principal components as red, green and blue.

    A component fills its scale from the 1st to the 99th percentile. Its sign, which the data leave open, is that of its
    largest loading; with `follow`, colours `[..., 3]` of the same tokens from elsewhere, the one that agrees with them.
    Rows that are not finite are left out.
    """
    rows_nd = x.flatten(0, -2).double()
    finite_n = rows_nd.isfinite().all(-1)
    rows_nd = rows_nd[finite_n]
    width = x.shape[-1]
    axes_d3 = torch.zeros(width, 3, dtype=torch.float64)
    if len(rows_nd) == 0:
        zero = torch.zeros(3, dtype=torch.float64)
        return Palette(mean_d=torch.zeros(width, dtype=torch.float64), axes_d3=axes_d3, low_3=zero, high_3=zero)
    mean_d = rows_nd.mean(0)
    found = torch.linalg.eigh((rows_nd - mean_d).T @ (rows_nd - mean_d)).eigenvectors.flip(1)[:, :3]
    top = found.gather(0, found.abs().argmax(0, keepdim=True))
    axes_d3[:, : found.shape[1]] = found * top.sign()
    at_n3 = (rows_nd - mean_d) @ axes_d3
    if follow is not None:
        other_n3 = follow.flatten(0, -2).double()[finite_n]
        sign_3 = 1 - 2 * ((at_n3 * (other_n3 - other_n3.mean(0))).sum(0) < 0).double()
        axes_d3, at_n3 = axes_d3 * sign_3, at_n3 * sign_3
    sorted_n3, cut = at_n3.sort(0).values, (len(at_n3) - 1) // 100
    return Palette(mean_d=mean_d, axes_d3=axes_d3, low_3=sorted_n3[cut], high_3=sorted_n3[-1 - cut])


def token_video(colours_bn3: Tensor, grid: Grid) -> Tensor:
    """Colours of all tokens as small clips, one pixel a token: `[B, t, 3, h, w]`."""
    return colours_bn3.reshape(len(colours_bn3), *grid, 3).permute(0, 1, 4, 2, 3)


def place(colours_bq3: Tensor, positions_bq: Tensor, tokens: int) -> Tensor:
    """Colours of a subset of the tokens among grey ones, `[B, N, 3]`."""
    canvas = torch.full((colours_bq3.shape[0], tokens, 3), GREY, dtype=torch.uint8)
    return canvas.scatter_(1, positions_bq[..., None].expand(-1, -1, 3), colours_bq3)


def photo_strip(frames_fchw: Tensor) -> str:
    """Frames side by side, made smaller where they are larger than `SIDE`, as a data URI."""
    height, width = frames_fchw.shape[-2:]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        x = F.interpolate(frames_fchw.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
        frames_fchw = x.round().clamp(0, 255).to(torch.uint8)
    return png(_beside(frames_fchw))


def token_strip(frames_fchw: Tensor) -> str:
    """Token pictures side by side, every token a square, as a data URI."""
    times = max(1, SIDE // max(frames_fchw.shape[-2:]))
    return png(_beside(frames_fchw.repeat_interleave(times, -1).repeat_interleave(times, -2)))


def _beside(frames_fchw: Tensor) -> Tensor:
    gap = max(2, frames_fchw.shape[-1] // 24)
    padded = F.pad(frames_fchw, (0, gap), value=255)
    return torch.cat(padded.unbind(0), dim=-1)[..., :-gap]


def png(picture_chw: Tensor) -> str:
    """A uint8 RGB picture as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture_chw.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
