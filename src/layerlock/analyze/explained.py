"""How much of the tokens of each depth a linear map of the tokens of another depth explains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerlock import draws
from layerlock.learn.sums import Sums

TOKENS = 8
"""of each clip, at the same random positions at all depths"""
TARGETS = 64
"""random directions of a depth that are explained, at most: memory grows with depths squared times these"""
HELD_OUT = 4
"""one batch in so many is explained, not fitted to"""


class Explained:
    """Ridge regressions between all depths of one encoder, from sums over batches."""

    def __init__(self, depths: int, width: int, seed: int = 0) -> None:
        self.depths, self.outputs, self.batches = depths, min(width, TARGETS), 0
        self.generator = draws.generator(seed, "analyze/explained")
        direction_dd = torch.linalg.qr(torch.randn(width, width, generator=self.generator))[0]
        self.direction_do = direction_dd[:, : self.outputs]
        device = torch.device("cpu")
        self.sums = [[Sums(width, depths * self.outputs, device) for _ in "fh"] for _ in range(depths)]

    def add(self, features: Sequence[Tensor]) -> None:
        """Tokens `[B, N, D]` of the same clips at every depth, in order."""
        tokens = features[0].shape[1]
        position = torch.randperm(tokens, generator=self.generator)[:TOKENS]
        rows = [x_bnd[:, position].float().cpu().flatten(0, 1) for x_bnd in features]
        target = torch.cat([x_nd @ self.direction_do for x_nd in rows], 1)
        held_out = self.batches % HELD_OUT == HELD_OUT - 1
        for sums, x_nd in zip(self.sums, rows, strict=True):
            sums[held_out].add(x_nd, target)
        self.batches += 1

    def share(self) -> Tensor:
        """Of the variance of each depth (columns) on held-out clips, by each depth (rows), `[P, P]`; NaN where there is
        too little to fit to or nothing varies.
        """
        shares = torch.full((self.depths, self.depths), torch.nan, dtype=torch.float64)
        for row, (fitted, held_out) in enumerate(self.sums):
            try:
                error_q = held_out.errors(*fitted.regression())
            except (ValueError, ZeroDivisionError):
                continue
            error_po = error_q.view(self.depths, self.outputs)
            variance_po = held_out.variance().view(self.depths, self.outputs)
            varies_p = variance_po.sum(1) > 1e-12 * (1 + held_out.mean().square().view(self.depths, -1).sum(1))
            shares[row] = torch.where(varies_p, 1 - error_po.sum(1) / variance_po.sum(1), torch.nan)
        return shares
