"""How sure a mean over test clips is, and the difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws

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
    values_v = values_v.double()
    rows = draws.bits(seed, "bootstrap", torch.arange(draws_count), len(values_v)) % len(values_v)
    low, high = values_v[rows].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values_v.mean()), low, high)


def proves(lead: Interval, clips: int) -> bool:
    """Whether a mean difference between two readouts on the same clips is above zero beyond doubt."""
    return clips >= FEWEST and lead.low > 0
