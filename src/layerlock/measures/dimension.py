"""How many numbers it takes to say where features are, near each of them.

scikit-dimension, weighed for this, has the same estimate; it brings numba and LLVM, 200 MB, and takes seconds to be
imported, for the ten lines below.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock.measures.moments import CONSTANT

DISCARDED = 0.1
"""share of the largest ratios that the fit leaves out, as the paper's"""


def intrinsic_dimension(x_vd: Tensor) -> float:
    """TwoNN (Facco et al., 2017) of rows `[V, D]`: the ratio mu of the distances to a row's second and its nearest
    neighbour has the distribution 1 - mu^-d in d dimensions, so that d is the slope of a line through 0 of -log(1 -
    F(mu)) over log(mu), F being the share of the rows with no larger ratio. Rows that are there twice do not count.

    It is of the scale of neighbours, and too low above ten or so where rows are few. ValueError where rows differ by
    rounding alone or are too few.
    """
    x_vd = x_vd.double()
    if not x_vd.var(0, correction=0).sum() > CONSTANT * x_vd.mean(0).square().sum():
        raise ValueError("features do not vary")
    if len(x_vd) < 4:
        raise ValueError(f"{len(x_vd)} clips are too few for their neighbours")
    # without products, which would round small distances
    distance_vv = torch.cdist(x_vd, x_vd, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    nearest_v, second_v = distance_vv.topk(2, largest=False).values.unbind(1)
    log_ratio_v = (second_v / nearest_v)[nearest_v > 0].log().sort().values
    fitted = int(len(log_ratio_v) * (1 - DISCARDED))
    share_v = torch.arange(1, fitted + 1, dtype=torch.float64, device=x_vd.device) / len(log_ratio_v)
    log_ratio_v = log_ratio_v[:fitted]
    if not log_ratio_v.any():
        raise ValueError("no clip has one nearest neighbour")
    return float(log_ratio_v @ -torch.log1p(-share_v) / (log_ratio_v @ log_ratio_v))
