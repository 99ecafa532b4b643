"""How far the heads of every block of an encoder look, added up over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from layerlock import draws
from layerlock.analyze.metrics import ATTENTION, Metric
from layerlock.encoders import AttentionEncoder
from layerlock.measures.attention import attention_distance
from layerlock.model.position import grid_coordinates

CLIPS = 8
"""of each batch, the first: a block's weights are heads x QUERIES x tokens for each"""
QUERIES = 128
"""of each clip, at the same random positions in all blocks"""


class AttentionDistances:
    """Mean distances by head of all blocks of one encoder.

    A block's weights follow from the features of the depth before, so that no hook is needed and the encoder's own pass
    is as it is; they are held for one block at a time.
    """

    def __init__(self, encoder: AttentionEncoder, seed: int = 0) -> None:
        self.encoder, self.generator, self.clips = encoder, draws.generator(seed, "analyze/attention"), 0
        (frames, size), (t, h, w) = (encoder.clip.frames, encoder.clip.size), encoder.grid
        self.place_n3 = grid_coordinates(encoder.grid) * torch.tensor([frames / t, size / h, size / w])
        self.sums: dict[tuple[Metric, int], Tensor] = {}

    def add(self, features: Sequence[Tensor]) -> None:
        """Tokens `[B, N, D]` of the same clips at every depth, in order."""
        position_q = torch.randperm(len(self.place_n3), generator=self.generator)[:QUERIES]
        offset_qn3 = self.place_n3[position_q, None] - self.place_n3
        clips = len(features[0][:CLIPS])
        for block, x_bnd in enumerate(features[:-1], 1):
            q_bhnd, k_bhnd = self.encoder.queries_and_keys(block, x_bnd[:CLIPS])
            for metric, distance in ATTENTION.items():
                distance_qn = distance(offset_qn3).float().to(q_bhnd.device)
                found_h = attention_distance(q_bhnd[:, :, position_q], k_bhnd, distance_qn).cpu()
                self.sums[metric, block] = self.sums.get((metric, block), 0) + clips * found_h
        self.clips += clips

    def by_head(self, metric: Metric, block: int) -> list[float]:
        """Of each head of a block (1: the first); [NaN] before the first batch."""
        return (self.sums[metric, block] / self.clips).tolist() if self.clips else [math.nan]
