"""How far attention reaches."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_distance(q_bhqd: Tensor, k_bhnd: Tensor, distance_qn: Tensor) -> Tensor:
    """Mean distance from queries to keys, weighted by attention, over clips and queries, by head: float32 `[heads]`
    (Dosovitskiy et al., arXiv 2010.11929, figure 7; Raghu et al., arXiv 2108.08810).

    Weights are the softmax of products over sqrt(D / heads), in float32; the result is in the units of `distance_qn`.
    """
    weight_bhqn = (q_bhqd.float() @ k_bhnd.float().mT * q_bhqd.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bhqn,qn->h", weight_bhqn, distance_qn) / (len(q_bhqd) * q_bhqd.shape[2])
