"""LiDAR: how many directions tell clips apart that views of one clip do not spread over (arXiv 2312.04000)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerlock.measures.moments import CONSTANT, Moments
from layerlock.measures.rank import effective_rank

DELTA = 1e-4
"""share of the mean variance within clips that is added to it in all directions; the paper adds a constant, with which
LiDAR depends on the scale of the features"""


class ViewMoments:
    """What features `[B, V, D]` of V views of each clip add to the scatter between clips and within them."""

    def __init__(self, width: int) -> None:
        self.views, self.within_dd, self.means = 0, torch.zeros(width, width, dtype=torch.float64), Moments(width)

    def add(self, x_bvd: Tensor) -> None:
        """Some more clips, always of as many views."""
        x_bvd = x_bvd.double().cpu()
        mean_bd = x_bvd.mean(1)
        off_nd = (x_bvd - mean_bd[:, None]).flatten(0, 1)
        self.views = x_bvd.shape[1]
        self.within_dd += off_nd.T @ off_nd
        self.means.add(mean_bd)

    def lidar(self) -> float:
        """LiDAR, in [1, D]; NaN where views do not differ or there are fewer than two of them or two clips.

        Scatters are free of bias: that between clips is less what views add to their means, 1/V of that within them,
        without which few views look like more directions.
        """
        clips = self.means.count
        if clips < 2 or self.views < 2:
            return math.nan
        within_dd = self.within_dd / (clips * (self.views - 1))
        if not within_dd.trace() > CONSTANT * self.means.mean().square().sum():
            return math.nan
        return lidar(self.means.covariance() * clips / (clips - 1) - within_dd / self.views, within_dd)


def lidar(between_dd: Tensor, within_dd: Tensor) -> float:
    """Exponential of the entropy of the eigenvalues of the scatter between clips, whitened by that within them, in
    [1, D] (arXiv 2312.04000, section 3); NaN where there is none between them.
    """
    width = len(within_dd)
    ridge_dd = DELTA * within_dd.trace() / width * torch.eye(width, dtype=within_dd.dtype)
    root_dd = torch.linalg.cholesky(within_dd + ridge_dd)
    half_dd = torch.linalg.solve_triangular(root_dd, between_dd, upper=False)
    whitened_dd = torch.linalg.solve_triangular(root_dd, half_dd.T, upper=False)
    return effective_rank(torch.linalg.eigvalsh(whitened_dd).clamp(min=0))
