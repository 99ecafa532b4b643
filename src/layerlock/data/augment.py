"""Random crop and flip of LayerLock (sec. 4) for a whole batch at once, on whatever device the batch is on."""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock.data.clips import Batch


def crop_and_flip(batch: Batch) -> Tensor:
    """The clips as the model sees them, uint8 `[B, T, 3, size, size]`: each cut at its own offset, flipped or not."""
    return _take(batch.video_btchw, batch)


def crop_and_flip_depth(batch: Batch) -> Tensor:
    """The depth of the same pixels: float32 metres `[B, T, size, size]`. ValueError if the batch has none."""
    if batch.depth_bthw is None:
        raise ValueError("this batch carries no depth")
    return _take(batch.depth_bthw[:, :, None], batch)[:, :, 0]


def _take(x_btchw: Tensor, batch: Batch) -> Tensor:
    offset_s = torch.arange(batch.size, device=x_btchw.device)
    row_bs = batch.crop_b2[:, :1] + offset_s
    column_bs = batch.crop_b2[:, 1:] + torch.where(batch.flip_b[:, None], offset_s.flip(0), offset_s)
    clip_b = torch.arange(len(x_btchw), device=x_btchw.device)
    # the slices between the index tensors put the indexed axes first: [B, size, size, T, C]
    taken = x_btchw[clip_b[:, None, None], :, :, row_bs[:, :, None], column_bs[:, None, :]]
    return taken.permute(0, 3, 4, 1, 2).contiguous()
