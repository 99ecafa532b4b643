"""What one run alone says of how far a prefix has converged: a function and a line of a table for each signal.

All say more where less has converged. A decaying learning rate makes everything that is a change look converged: the
signals `over the rate` are what the change would be at the full rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from layerlock.analyze.convergence.moments import Moment
from layerlock.config import Config
from layerlock.learn.sums import Sums
from layerlock.measures.similarity import Alignment
from layerlock.train.schedule import learning_rate

HELD_OUT = 4
"""one probe clip in so many is explained, not fitted to"""


@dataclass(frozen=True, kw_only=True)
class At:
    """A baseline at the step of a cell, `now`; a little before, where there was time for it; and at its end."""

    config: Config
    now: Moment
    before: Moment | None
    end: Moment
    target_bsp: Tensor
    """what the baseline predicts of the probe's tokens"""

    def earlier(self) -> Moment:
        """The moment a little before. ValueError where there is none."""
        if self.before is None:
            raise ValueError("the baseline has no checkpoint shortly before the step")
        return self.before

    def rate(self) -> float:
        """The mean learning rate since that moment, as a share of the full one."""
        optim, steps = self.config.optim, self.config.steps
        rates = [learning_rate(optim, steps, step, ()) for step in range(self.earlier().step, self.now.step)]
        return sum(rates) / len(rates) / optim.lr


def weight_change(at: At, layer: int) -> float:
    """Change of the weight norm of the prefix in the 2 % of the run before, as a share of the norm: the paper starts
    freezing when norms of the first layers plateau (LayerLock section 3.4)."""
    now, before = (moment.norm(moment.weights, layer) for moment in (at.now, at.earlier()))
    return abs(now - before) / now


def weight_change_over_rate(at: At, layer: int) -> float:
    """The same over the mean learning rate of that stretch, as a share of the full rate."""
    return weight_change(at, layer) / at.rate()


def update_ratio(at: At, layer: int) -> float:
    """Norm of AdamW's last update of the prefix over the norm of its weights (the ratio that is watched by eye in
    Karpathy, 2022, makemore part 3)."""
    return update_ratio_over_rate(at, layer) * learning_rate(at.config.optim, at.config.steps, at.now.step - 1, ())


def update_ratio_over_rate(at: At, layer: int) -> float:
    """The same over the learning rate: what is left is how much consecutive gradients agree, since AdamW divides them
    by their size (Kingma and Ba, arXiv 1412.6980, section 2.1: a signal-to-noise ratio)."""
    return at.now.norm(at.now.updates, layer) / at.now.norm(at.now.weights, layer)


def gradient_size(at: At, layer: int) -> float:
    """Root mean square of the gradients of the prefix, a parameter, over the last updates (AdamW's second moment,
    without its bias), after clipping where there is any."""
    return at.now.norm(at.now.gradients, layer) / math.sqrt(sum(at.now.counts[: layer + 1]))


def drift(at: At, layer: int) -> float:
    """How far tokens of h_k, the output of block k, moved in the 2 % of the run before: root mean squared distance over
    the root mean squared deviation from their mean."""
    return _distance(at.now, at.earlier(), layer)


def drift_over_rate(at: At, layer: int) -> float:
    """The same over the mean learning rate of that stretch, as a share of the full rate."""
    return drift(at, layer) / at.rate()


def drift_to_end(at: At, layer: int) -> float:
    """The same distance between h_k and what it is at the end of the run."""
    return _distance(at.end, at.now, layer)


def cka_to_end(at: At, layer: int) -> float:
    """1 - debiased linear CKA (Kornblith et al., arXiv 1905.00414) of mean-pooled h_k with itself at the end of the
    run, as Raghu et al. (arXiv 1706.05806) compare layers with their last state."""
    alignment = Alignment(unbiased=True)
    alignment.add([moment.features[layer].mean(1) for moment in (at.now, at.end)])
    return 1 - float(alignment.cka()[0, 1])


def unexplained(at: At, layer: int) -> float:
    """Share of the variance of what is predicted of a token (pixels, motion) that a ridge regression from h_k of the
    same token does not explain, on clips that it was not fitted to; whole clips, nothing masked."""
    held_out_b = torch.arange(len(at.target_bsp)) % HELD_OUT == HELD_OUT - 1
    x_bsd = at.now.features[layer]
    sums = []
    for rows_b in (~held_out_b, held_out_b):
        sums.append(Sums(x_bsd.shape[-1], at.target_bsp.shape[-1], x_bsd.device))
        sums[-1].add(x_bsd[rows_b].flatten(0, 1), at.target_bsp[rows_b].flatten(0, 1))
    fitted, other = sums
    return 1 - other.explained(*fitted.regression())


def time_left(at: At, layer: int) -> float:
    """Share of the run that is to come: what any signal has to beat."""
    return 1 - at.now.step / at.config.steps


def depth(at: At, layer: int) -> float:
    """Number of blocks that freeze: what any signal has to beat."""
    return float(layer)


def _distance(new: Moment, old: Moment, layer: int) -> float:
    x_nd, y_nd = (moment.features[layer].flatten(0, 1).double() for moment in (new, old))
    return float(((x_nd - y_nd).square().sum() / (x_nd - x_nd.mean(0)).square().sum()).sqrt())


Known = Literal["at once", "afterwards", "control"]
"""at that step already; at the end of the run only; without looking at the run"""
SIGNALS: Mapping[str, tuple[Callable[[At, int], float], Known]] = {
    "weight norm change": (weight_change, "at once"),
    "weight norm change over the rate": (weight_change_over_rate, "at once"),
    "update / weight": (update_ratio, "at once"),
    "update / weight over the rate": (update_ratio_over_rate, "at once"),
    "gradient size": (gradient_size, "at once"),
    "drift": (drift, "at once"),
    "drift over the rate": (drift_over_rate, "at once"),
    "unexplained share": (unexplained, "at once"),
    "drift to the end": (drift_to_end, "afterwards"),
    "1 - CKA to the end": (cka_to_end, "afterwards"),
    "time left": (time_left, "control"),
    "depth": (depth, "control"),
}
