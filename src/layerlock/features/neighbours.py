"""Nearest neighbours by cosine, and how often they share a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PAIRS = 2**22
"""pairs of a query and a video at a time: some 50 bytes each while they are ranked, and no ranks are kept"""


def _blocks(rows: Tensor, videos: int) -> tuple[Tensor, ...]:
    """Queries, as many at a time as memory is meant for."""
    return rows.split(max(1, PAIRS // videos))


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
    for part in _blocks(rows, len(x)):
        cosine = x[part] @ x.T
        cosine[torch.arange(len(part), device=x.device), part] = -torch.inf
        top = cosine.topk(count, dim=1)
        found_index.append(top.indices)
        found_cosine.append(top.values)
    return torch.cat(found_index), torch.cat(found_cosine)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Leave-one-out retrieval, query by query."""

    query_q: Tensor
    """row of each query"""
    average_precision_q: Tensor
    """float64, on the CPU"""
    first_q: Tensor
    """how many videos of other labels stand before the first one of the same"""
    nearest_q: Tensor
    """row of the most similar video"""


def leave_one_out(features_vd: Tensor, label_v: Tensor, group_v: Tensor | None = None) -> Retrieval:
    """Every video queries all others that are not of its group (`group_v`, numbers; each its own without it).

    A video whose label no other group has cannot be answered and is left out of the queries. ValueError where that is
    all.
    """
    x = F.normalize(features_vd.float(), dim=1)
    label_v = label_v.to(x.device)
    group_v = torch.arange(len(x)).to(x.device) if group_v is None else group_v.to(x.device)
    queries = torch.cat([_answered(label_v, group_v, part) for part in _blocks(torch.arange(len(x)), len(x))])
    if len(queries) == 0:
        raise ValueError("no label occurs in two groups" if len(group_v.unique()) < len(x) else "no label occurs twice")
    average, first, nearest = _ranked(x, label_v, group_v, queries)
    return Retrieval(
        query_q=queries.cpu(),
        average_precision_q=average,
        first_q=first,
        nearest_q=nearest,
    )


def _answered(label_v: Tensor, group_v: Tensor, rows: Tensor) -> Tensor:
    """Those of `rows` whose label a video of another group has."""
    rows = rows.to(label_v.device)
    alike = (label_v[rows, None] == label_v) & (group_v[rows, None] != group_v)
    return rows[alike.any(1)]


def _ranked(x: Tensor, label_v: Tensor, group_v: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision, place of the first hit and row of the nearest video, of queries, on the CPU."""
    average_q = torch.empty(len(queries), dtype=torch.float64)
    first_q, nearest_q = (torch.empty(len(queries), dtype=torch.int64) for _ in range(2))
    rank = torch.arange(1, len(x) + 1, device=x.device, dtype=torch.float64)
    done = 0
    for rows in _blocks(queries, len(x)):
        # what is kept is copied out: small blocks between large ones would pin memory
        part, done = slice(done, done + len(rows)), done + len(rows)
        own = group_v[rows, None] == group_v
        order = (x[rows] @ x.T).masked_fill_(own, -torch.inf).argsort(dim=1, descending=True)
        hit = ((label_v[rows, None] == label_v) & ~own).gather(1, order)
        average_q[part] = (hit.cumsum(1) / rank).mul_(hit).sum(1) / hit.sum(1)
        first_q[part] = hit.byte().argmax(1)
        nearest_q[part] = order[:, 0]
    return average_q, first_q, nearest_q
