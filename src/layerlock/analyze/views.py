"""Views of clips as joint-embedding methods see them in training: random crops, flips and colours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data import Batch, ClipConfig
from layerlock.data.augment import augment, random_box

AREA, JITTER, GRAYSCALE = (0.3, 1.0), 0.8, 0.1
"""share of the picture that is seen (V-JEPA's pretraining); of views whose colours change, and that are grey (LayerLock
A.4.1)"""


def random_view(clips: Batch, clip: ClipConfig, number: int, seed: int) -> Tensor:
    """A view of clips as they were loaded, uint8 `[B, T, 3, size, size]`: that of a number, which follows with the seed
    and the clip's own index from nothing else.
    """
    clip = replace(clip, area=AREA, jitter=JITTER, grayscale=GRAYSCALE)
    purpose = f"analyze/view/{number}"
    u_b5 = draws.uniform(seed, purpose, clips.index_b, 5).cpu()
    side = clip.resize_side
    box_b4 = torch.tensor([random_box(u_4, side, side, clip) for u_4 in u_b5[:, :4].tolist()], dtype=torch.float32)
    device = clips.video_btchw.device
    cut = replace(clips, crop_b4=box_b4.to(device), flip_b=(u_b5[:, 4] < 0.5).to(device))
    return augment(cut, clip, draws.key(seed, purpose))
