"""How sure a mean over test videos is, and the difference of two: bootstrapped over groups and over readout seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

FEWEST = 10
"""Of fewer groups of test videos there is no verdict: their interval is shorter than it says (docs/evaluation.md)."""
DRAWS = 2_000
"""bootstrap draws of an interval; five times as many where several comparisons need its far tails"""
LEVEL = 0.95
SHOWN_FROM = 5
"""Of fewer groups no interval is shown: of 3 it misses the truth in a quarter of the cases (benchmarks/coverage.py)."""
CELLS = 2**22
"""numbers drawn at a time, for the memory that they take"""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; from minus to plus infinity where nothing can be said."""

    mean: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low)


def bootstrap(
    values: Tensor,
    group_v: Tensor | None = None,
    *,
    weight_v: Tensor | None = None,
    seed: int = 0,
    compared: int = 1,
    draws: int = DRAWS,
) -> Interval:
    """The mean of one value a video, `[V]`, or a readout seed and video, `[S, V]`, with its 95 % interval.

    Groups (`group_v`, whole numbers `[V]`; without it each video is one) and seeds are drawn with replacement, both at
    once: scipy's percentile bootstrap. Its percentiles lie further out, as Student's t does of so many groups and
    seeds (the expanded percentile interval, Hesterberg 2015), since those of few groups lie too near to each other.
    With `weight_v` it is the sum of the values over the sum of the weights, both of what is drawn. `compared` intervals
    cover all at once (Bonferroni). No interval below `SHOWN_FROM` groups: it is infinite.
    """
    values_sv = values.double().reshape(-1, values.shape[-1]).numpy()
    numbers_v = np.arange(values_sv.shape[1]) if group_v is None else np.unique(group_v.numpy(), return_inverse=True)[1]
    count_g = np.bincount(numbers_v, None if weight_v is None else weight_v.double().numpy())
    sum_sg = np.stack([np.bincount(numbers_v, value_v) for value_v in values_sv])
    groups, seeds = len(count_g), len(sum_sg)
    mean = float(values_sv.mean() if weight_v is None else values_sv.mean(0).sum() / count_g.sum())
    if groups < SHOWN_FROM:
        return Interval(mean)
    if seeds > 1:  # the spread of S drawn of S is too small by (S - 1) / S
        sum_sg = sum_sg.mean(0) + (sum_sg - sum_sg.mean(0)) * (seeds / (seeds - 1)) ** 0.5

    def means(rows_bg: np.ndarray, seeds_bs: np.ndarray | None = None, axis: int = -1) -> np.ndarray:
        if seeds_bs is None:
            drawn_bg = sum_sg[0][rows_bg]
        else:
            share_bs = (seeds_bs[..., None] == np.arange(seeds)).mean(-2)
            drawn_bg = np.take_along_axis(share_bs @ sum_sg, rows_bg, -1)
        return drawn_bg.sum(axis) / count_g[rows_bg].sum(axis)

    found = stats.bootstrap(
        (np.arange(groups), np.arange(seeds))[: 1 + (seeds > 1)],
        means,
        n_resamples=draws if compared == 1 else 5 * draws,
        batch=max(1, CELLS // groups),
        vectorized=True,
        confidence_level=1 - 2 * _tail(sum_sg, count_g, compared),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _tail(sum_sg: np.ndarray, count_g: np.ndarray, compared: int) -> float:
    """The share of draws beyond each end of the interval."""
    (seeds, groups), total = sum_sg.shape, count_g.sum()
    mean_g = sum_sg.mean(0)
    residual_g = mean_g - mean_g.sum() / total * count_g
    of_groups = groups / (groups - 1) * (residual_g**2).sum() / total**2
    of_seeds = (sum_sg.sum(1) / total).var() / seeds  # of deviations that are made wider above
    freedom = groups - 1.0
    if of_seeds > 0:  # Satterthwaite
        freedom = (of_groups + of_seeds) ** 2 / (of_groups**2 / (groups - 1) + of_seeds**2 / (seeds - 1))
    beyond = stats.t.ppf(1 - (1 - LEVEL) / 2 / compared, freedom)
    return float(stats.norm.cdf(-((groups / (groups - 1)) ** 0.5) * beyond))


def proves(lead: Interval, groups: int) -> bool:
    """Whether the interval of a mean difference of two readouts lies above zero, and is of enough groups for it."""
    return groups >= FEWEST and lead.low > 0
