"""How sure a mean over test clips is, and the difference of two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from layerlock import draws

CHUNK = 200
"""draws at a time, for the memory that they take"""
FEWEST = 10
"""Of fewer clips a bootstrap's interval is too narrow to say that one figure is better than another."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(values_v: Tensor, *, seed: int = 0, draws_count: int = 2_000) -> Interval:
    """The mean of one value a clip, with the 2.5 and 97.5 percentiles of means over clips drawn with replacement.

    Of one seed the same clips are drawn, whatever the values.
    """
    values_v, times_nv = values_v.double(), _times_drawn(seed, draws_count, len(values_v))
    means_n = torch.cat([part.double() @ values_v for part in times_nv.split(CHUNK)]) / len(values_v)
    low, high = means_n.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values_v.mean()), low, high)


@lru_cache(maxsize=1)
def _times_drawn(seed: int, draws_count: int, clips: int) -> Tensor:
    """How often each clip is in each draw, float32 `[draws, clips]`: the same for all readouts of an evaluation."""
    times_nv = torch.zeros(draws_count, clips)
    for part, n in zip(times_nv.split(CHUNK), torch.arange(draws_count).split(CHUNK), strict=True):
        rows = draws.bits(seed, "bootstrap", n, clips) % clips
        part.scatter_add_(1, rows, torch.ones_like(part))
    return times_nv


def proves(lead: Interval, clips: int) -> bool:
    """Whether a mean difference between two readouts on the same clips is above zero beyond doubt."""
    return clips >= FEWEST and lead.low > 0
