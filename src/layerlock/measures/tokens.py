"""Figures of the tokens of clips `[B, N, D]`, or of pooled features `[B, D]`, batch by batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def token_cosine(features: Tensor) -> float:
    """Mean cosine between different layer-normed tokens `[..., D]`, in [-1, 1]: 1 when all tokens are one vector
    whose channels differ."""
    x = features.float().flatten(0, -2)
    x = F.normalize(F.layer_norm(x, x.shape[-1:]), dim=-1)
    rows = x.shape[0]
    return float((x.sum(0).square().sum() - x.square().sum()) / max(rows * (rows - 1), 1))


def uniformity(x_bd: Tensor, t: float = 2.0) -> float:
    """Logarithm of the mean of `exp(-t |x - y|^2)` over pairs of different unit-length features, at most 0, which is
    collapse (Wang and Isola, arXiv 2005.10242).
    """
    x_bd = F.normalize(x_bd.double(), dim=-1)
    if len(x_bd) < 2:
        return math.nan
    return float(torch.pdist(x_bd).square().mul(-t).exp().mean().log())


def displacement(before_bnd: Tensor, after_bnd: Tensor) -> float:
    """Mean length of the change of a token from one depth to another over its length before, from 0."""
    before_bnd, after_bnd = before_bnd.float(), after_bnd.float()
    length_bn = before_bnd.norm(dim=-1)
    moved_bn = (after_bnd - before_bnd).norm(dim=-1) / length_bn
    return float(moved_bn[length_bn > 0].mean())
