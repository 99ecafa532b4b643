"""Few training videos of each class, for learning curves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from layerlock import draws

DRAWS = 5
"""sets of so many videos a class that are drawn; figures are means over them"""


def ranks(label_v: Tensor, group_v: Tensor, *, seed: int, draw: int) -> Tensor:
    """The place of each training video in the order in which those of its class are drawn, int64 `[V]`, from 0 on.

    The first k of each class are so part of the first k + 1. Groups come in a random order, the same in every class,
    and the videos of a group one after the other, so that few videos of a class are of few groups.
    """
    videos = torch.arange(len(group_v))
    of_group_v = draws.uniform(seed, f"shots/{draw}/groups", group_v, 1)[:, 0]
    of_video_v = draws.uniform(seed, f"shots/{draw}/videos", videos, 1)[:, 0]
    order_v = torch.from_numpy(np.lexsort((of_video_v.numpy(), of_group_v.numpy(), label_v.numpy())))
    sorted_v = label_v[order_v]
    rank_v = torch.empty_like(videos)
    rank_v[order_v] = videos - torch.searchsorted(sorted_v, sorted_v)
    return rank_v
