"""How many directions features occupy, from the eigenvalues of their moments (`Moments`), the largest first.

The names are those of the papers, whose definitions differ: the entropy of eigenvalues or of singular values, of
centred or of uncentred features. All are NaN where nothing varies, as after a collapse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-10
"""an eigenvalue of at most this share of the largest is taken for rounding"""


def effective_rank(eigenvalue_d: Tensor) -> float:
    """Exponential of the entropy of the eigenvalues of the covariance, in [1, D] (Roy and Vetterli, 2007, there of
    singular values; here as in blockwise learning, arXiv 2601.09040).
    """
    return _spread(eigenvalue_d)


def rankme(squared_singular_value_d: Tensor) -> float:
    """Exponential of the entropy of the singular values of uncentred features, in [1, D] (RankMe, arXiv 2210.02885)."""
    return _spread(squared_singular_value_d.sqrt())


def participation_ratio(eigenvalue_d: Tensor) -> float:
    """`(sum of eigenvalues)^2 / sum of their squares` of the covariance, in [1, D] (Gao et al., 2017)."""
    total = float(eigenvalue_d.sum())
    return total**2 / float(eigenvalue_d.square().sum()) if total > 0 else math.nan


def alpha_req(eigenvalue_d: Tensor) -> float:
    """Exponent a of the power law `eigenvalue = c rank^-a` of the covariance (alpha-ReQ, NeurIPS 2022): the slope of a
    line through logarithms, each weighted by 1 / rank, as many ranks being deep in the tail. Near 1 is good; larger
    means fewer directions.
    """
    kept_d = eigenvalue_d[eigenvalue_d > ROUNDING * eigenvalue_d.amax()] if len(eigenvalue_d) else eigenvalue_d
    if len(kept_d) < 3:
        return math.nan
    x_d = torch.arange(1, len(kept_d) + 1, dtype=torch.float64).log()
    y_d, weight_d = kept_d.double().cpu().log(), (-x_d).exp()
    weight_d = weight_d / weight_d.sum()
    x_d, y_d = x_d - (weight_d * x_d).sum(), y_d - (weight_d * y_d).sum()
    return -float((weight_d * x_d * y_d).sum() / (weight_d * x_d.square()).sum())


def _spread(value_d: Tensor) -> float:
    """Exponential of the entropy of what each value is of their sum."""
    if not value_d.sum() > 0:
        return math.nan
    share_d = value_d / value_d.sum()
    return float(torch.special.entr(share_d).sum().exp())
