"""Nearest neighbours by cosine, and how often they share a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 2048
"""Queries at a time: bounds memory at BLOCK x V similarities."""


def neighbours(features_vd: Tensor, count: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `count` most similar other videos of each of `queries` (row numbers; all without them): indices and cosines
    `[Q, count]`.

    ValueError where there are not that many others.
    """
    if not 1 <= count < len(features_vd):
        raise ValueError(f"{count} neighbours among {len(features_vd)} videos")
    x = F.normalize(features_vd.float(), dim=1)
    rows = torch.arange(len(x), device=x.device) if queries is None else queries
    found_index, found_cosine = [], []
    for part in rows.split(BLOCK):
        cosine = x[part] @ x.T
        cosine[torch.arange(len(part), device=x.device), part] = -torch.inf
        top = cosine.topk(count, dim=1)
        found_index.append(top.indices)
        found_cosine.append(top.values)
    return torch.cat(found_index), torch.cat(found_cosine)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Leave-one-out retrieval: mean average precision, and the share of queries with a same-label video among the
    first k.
    """

    mean_average_precision: float
    top: dict[int, float]
    queries: int
    query_q: Tensor
    """row of each query"""
    average_precision_q: Tensor
    """float64, on the CPU"""
    first_q: Tensor
    """how many videos of other labels stand before the first one of the same"""
    nearest_q: Tensor
    """row of the most similar video"""


def leave_one_out(features_vd: Tensor, label_v: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> Retrieval:
    """Every video queries all others; a label that stands alone cannot be found and is left out of the queries."""
    label_v = label_v.to(features_vd.device)
    _, class_v, count_c = label_v.unique(return_inverse=True, return_counts=True)
    queries = (count_c[class_v] > 1).nonzero().flatten()
    if len(queries) == 0:
        raise ValueError("no label occurs twice")
    order, _ = neighbours(features_vd, len(features_vd) - 1, queries)
    hit = (label_v[order] == label_v[queries][:, None]).double()
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device, dtype=torch.float64)
    precision = hit.cumsum(1) / rank
    average = (precision * hit).sum(1) / hit.sum(1)
    top = {k: float((hit[:, :k].sum(1) > 0).double().mean()) for k in ks if k < len(features_vd)}
    return Retrieval(
        mean_average_precision=float(average.mean()),
        top=top,
        queries=len(queries),
        query_q=queries.cpu(),
        average_precision_q=average.cpu(),
        first_q=hit.argmax(1).cpu(),
        nearest_q=order[:, 0].cpu(),
    )
