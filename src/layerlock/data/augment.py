"""Crop, flip and colour for a whole batch at once, on whatever device the batch is on.

A plain crop is LayerLock's (sec. 3.4): size x size pixels at a random place. A random-size crop is V-JEPA's: a box of
random area and aspect, resampled to size x size. Colour is that of the readouts on Something-Something (sec. A.4.1 and
Table 12 of LayerLock).

What a clip gets depends on the seed and its global sample index alone: not on the batch that it is in, on how that is
split, or on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.clips import Batch, ClipConfig

BRIGHTNESS = (-0.125, 0.125)
"""added to every channel, which go from 0 to 1 (Table 12)"""
SATURATION = (0.6, 1.4)
"""times the saturation of HSV (Table 12)"""
CONTRAST = (0.6, 1.4)
"""times the distance from the frame's mean (Table 12)"""
HUE = (-0.2, 0.2)
"""added to the hue of HSV, in turns of the colour circle (Table 12)"""
LUMA = (0.2989, 0.5870, 0.1140)
"""weights of red, green and blue in grayscale (ITU-R BT.601)"""

VALUES_AT_ONCE = 1 << 22
"""Clips are worked on in float32 in groups of at most so many values, or one by one (16 MiB a tensor)."""

_WEIGHT_STEPS = 1 << 16  # products of such weights with bytes, and their sums, are exact in float32
_TINY = 1e-6  # in place of a difference of 0 that is divided by; in grey levels


def augment(batch: Batch, clip: ClipConfig, seed: int) -> Tensor:
    """The clips as a model in training sees them: cropped, flipped and coloured, uint8 `[B, T, 3, size, size]`.

    With `clip.area` the crops are resampled by a triangle filter, as wide as the picture shrinks (the antialiased
    "bilinear" of image libraries). With probability `clip.jitter` a clip's brightness, saturation, contrast and hue
    are changed, by amounts from Table 12 that are the same for all its frames; then, with probability
    `clip.grayscale`, it becomes grayscale (sec. A.4.1).

    Values between two steps of the jitter are not clipped to the range of a picture, those after the last one are:
    see `_jittered` for what becomes of them in HSV.
    """
    video_btchw = crop_and_flip(batch) if clip.area is None else _resample(batch)
    if clip.jitter > 0 or clip.grayscale > 0:
        _colour(video_btchw, batch.index_b, clip, seed)
    return video_btchw


def crop_and_flip(batch: Batch) -> Tensor:
    """The clips without other augmentations, uint8 `[B, T, 3, size, size]`: each cut at its own place, flipped or not.

    For crops of size x size pixels; a crop of any other size is taken by nearest pixels.
    """
    return _take(batch.video_btchw, batch)


def crop_and_flip_target(batch: Batch, name: str) -> Tensor:
    """A target of the same crops: of a map the nearest pixels `[B, T, size, size]`, any other as it is `[B]`.

    Maps are not averaged: there is no depth half-way between two things. ValueError if the batch has no such target.
    """
    if name not in batch.targets:
        raise ValueError(f"this batch has no target {name}; it has: {', '.join(batch.targets) or 'none'}")
    target = batch.targets[name]
    return target if target.ndim == 1 else _take(target[:, :, None], batch)[:, :, 0]


def random_box(u_4: Sequence[float], height: int, width: int, clip: ClipConfig) -> tuple[float, float, float, float]:
    """The box of a random-size crop: (top, left, height, width) in pixels of the window of R x R, R = clip.resize_side.

    `u_4` are four numbers in [0, 1), for area, aspect, and place down and across; `height` and `width` are the
    picture's proportions before it was squeezed into the window. The area is uniform in `clip.area` times the
    picture's, the logarithm of width over height, as seen in the picture, uniform in that of `clip.aspect` (the
    random-resized crop of V-JEPA's pretraining), the place uniform where the box fits.

    A box that is longer than the picture on one side is cut to it there, so that wide pictures give smaller areas and
    narrower boxes than were drawn. Drawing again until one fits would need more than four numbers. ValueError if the
    clip has no `area`.
    """
    if clip.area is None:
        raise ValueError("clip.area is None: crops are of clip.size pixels")
    area = _between(*clip.area, u_4[0])
    aspect = math.exp(_between(math.log(clip.aspect[0]), math.log(clip.aspect[1]), u_4[1]))
    tall = min(1.0, math.sqrt(area / aspect * width / height))
    wide = min(1.0, math.sqrt(area * aspect * height / width))
    side = clip.resize_side
    return u_4[2] * (1 - tall) * side, u_4[3] * (1 - wide) * side, tall * side, wide * side


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _take(x_btchw: Tensor, batch: Batch) -> Tensor:
    """The pixels nearest to the places of the crop's pixels, which are the pixels themselves in a plain crop."""
    top_b, left_b, height_b, width_b = batch.crop_b4.double().unbind(1)
    row_bs = _places(top_b, height_b, batch.size).long()
    column_bs = _places(left_b, width_b, batch.size).long()
    column_bs = torch.where(batch.flip_b[:, None], column_bs.flip(1), column_bs)
    place_bq = (row_bs[:, :, None] * x_btchw.shape[-1] + column_bs[:, None, :]).flatten(1)
    pixels_bnp = x_btchw.flatten(3).flatten(1, 2)
    taken_bnq = pixels_bnp.gather(2, place_bq[:, None].expand(-1, pixels_bnp.shape[1], -1))
    return taken_bnq.view(*x_btchw.shape[:3], batch.size, batch.size)


def _places(begin_b: Tensor, length_b: Tensor, size: int) -> Tensor:
    """Centres of a crop's pixels along one side, in pixels of the window `[B, size]`; 0.5 is the first one's centre."""
    centre_s = torch.arange(size, device=begin_b.device) + 0.5
    return begin_b[:, None] + centre_s * (length_b / size)[:, None]


def _resample(batch: Batch) -> Tensor:
    """The crops, flipped or not, by a triangle filter: uint8 `[B, T, 3, size, size]`."""
    video_btchw, size = batch.video_btchw, batch.size
    top_b, left_b, height_b, width_b = batch.crop_b4.double().unbind(1)
    down_bsr = _filter(top_b, height_b, size, video_btchw.shape[-2])
    across_bsr = _filter(left_b, width_b, size, video_btchw.shape[-1])
    across_bsr = torch.where(batch.flip_b[:, None, None], across_bsr.flip(1), across_bsr)
    group = _group(video_btchw)
    parts = zip(video_btchw.split(group), down_bsr.split(group), across_bsr.split(group), strict=True)
    return torch.cat([_apply(*part) for part in parts])


def _filter(begin_b: Tensor, length_b: Tensor, size: int, side: int) -> Tensor:
    """What each of `side` pixels weighs in each of a crop's: `[B, size, side]`, rows that sum to 1, float32."""
    reach_b = (length_b / size).clamp(min=1)
    centre_r = torch.arange(side, device=begin_b.device) + 0.5
    distance_bsr = (centre_r - _places(begin_b, length_b, size)[:, :, None]).abs()
    weight_bsr = (1 - distance_bsr / reach_b[:, None, None]).clamp(min=0)
    weight_bsr = weight_bsr / weight_bsr.sum(dim=2, keepdim=True)
    return (weight_bsr * _WEIGHT_STEPS).round().float() / _WEIGHT_STEPS


def _apply(video_btchw: Tensor, down_bsr: Tensor, across_bsr: Tensor) -> Tensor:
    """Filters across, then down, rounded to whole grey levels after each, so that every sum is exact in any order.

    Each pass filters the last axis and puts it first, which makes it one matrix product for each clip.
    """
    frames, channels, side, _ = video_btchw.shape[1:]
    size = down_bsr.shape[1]
    row_bnr = video_btchw.flatten(1, 3).float()
    column_bnr = _whole(across_bsr @ row_bnr.mT).reshape(len(video_btchw), -1, side)
    taken_bsn = _whole(down_bsr @ column_bnr.mT).to(torch.uint8)
    return taken_bsn.unflatten(2, (size, frames, channels)).permute(0, 3, 4, 1, 2).contiguous()


def _whole(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_()


def _group(video_btchw: Tensor) -> int:
    """How many clips to work on at once."""
    return max(1, VALUES_AT_ONCE // video_btchw[0].numel())


def _colour(video_btchw: Tensor, index_b: Tensor, clip: ClipConfig, seed: int) -> None:
    """Jitter and grayscale, in place, of the clips that draw them."""
    draw_b6 = draws.uniform(seed, "colour", index_b, 6)
    # which clips these are makes the host wait for the device, once: both before any of the work on colour
    jitter_n = (draw_b6[:, 0] < clip.jitter).nonzero()[:, 0]
    gray_n = (draw_b6[:, 1] < clip.grayscale).nonzero()[:, 0]
    group = _group(video_btchw)
    for part in jitter_n.split(group):
        video_btchw[part] = _bytes(_jittered(video_btchw[part].float(), draw_b6[part, 2:]))
    for part in gray_n.split(group):
        video_btchw[part] = _bytes(_grayscale(video_btchw[part].float()))


def _bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def _jittered(x_ntchw: Tensor, draw_n4: Tensor) -> Tensor:
    """Brightness, saturation, contrast and hue of Table 12, in this order, of pictures in grey levels (0 to 255).

    `draw_n4` are numbers in [0, 1) that say where in its range each amount is. A value that leaves 0 to 255 stays as
    it is until the end. In HSV a pixel's value is its highest channel and its saturation how far the lowest is below
    that, as a part of it: cut to 1 here, so that no channel of a pixel with a positive value is negative after it; a
    pixel without a positive value becomes grey.
    """
    low_4, high_4 = draw_n4.new_tensor([BRIGHTNESS, SATURATION, CONTRAST, HUE]).T
    amount_n4 = (low_4 + (high_4 - low_4) * draw_n4).float()
    brightness, saturation, contrast, hue = amount_n4[:, :, None, None, None, None].unbind(1)
    x_ntchw = _saturated(x_ntchw + 255 * brightness, saturation)
    # in float64 the order of the sum leaves no trace
    mean_ntc11 = x_ntchw.mean(dim=(-2, -1), keepdim=True, dtype=torch.float64).float()
    return _turned(x_ntchw.sub_(mean_ntc11).mul_(contrast).add_(mean_ntc11), hue)


def _extremes(x_ntchw: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest channel of each pixel, `[N, T, 1, H, W]`; much faster than a reduction over three."""
    red, green, blue = x_ntchw.split(1, dim=2)
    return torch.minimum(torch.minimum(red, green), blue), torch.maximum(torch.maximum(red, green), blue)


def _saturated(x_ntchw: Tensor, factor: Tensor) -> Tensor:
    """Times the saturation of HSV: every channel as much further from the highest one, which stays."""
    low, high = _extremes(x_ntchw)
    most = high.clamp(min=0) / (high - low).clamp(min=_TINY)  # the factor that makes the saturation 1
    return high - (high - x_ntchw) * torch.minimum(factor, most)


def _turned(x_ntchw: Tensor, turn: Tensor) -> Tensor:
    """The hue of HSV turned around the circle: a pixel keeps its highest and lowest value, other channels have them."""
    low, high = _extremes(x_ntchw)
    span = high - low
    red, green, blue = x_ntchw.split(1, dim=2)
    away = torch.where(high == green, 2 * span + blue - red, 4 * span + red - green)
    away = torch.where(high == red, green - blue, away)
    hue = away / span.clamp(min=_TINY) + 6 * turn  # in sixths of the circle, from red by green to blue
    from_c11 = hue.new_tensor([0.0, 4.0, 2.0])[:, None, None]
    # a channel is highest for two sixths around its own hue, lowest for two around the opposite one
    place = (hue + from_c11).remainder_(6)
    return place.sub_(3).abs_().sub_(1).clamp_(0, 1).mul_(span).add_(low)


def _grayscale(x_ntchw: Tensor) -> Tensor:
    red, green, blue = x_ntchw.split(1, dim=2)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).expand_as(x_ntchw)
