"""Attention distances of an encoder against its blocks written out in numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tiny import MODEL, video

from layerlock.analyze.attention import AttentionDistances
from layerlock.analyze.metrics import ATTENTION
from layerlock.model.encoder import ClipShape, Encoder


def test_distances_are_those_of_the_blocks_written_out() -> None:
    """Patches of 2 x 8 x 8 in clips of 8 x 24 x 24; two batches."""
    encoder = Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=1)
    distances = AttentionDistances(encoder)
    assert math.isnan(distances.by_head(next(iter(ATTENTION)), 2)[0])
    batches = [encoder.forward_intermediates(video(clips, seed), range(7)) for seed, clips in enumerate((3, 2))]
    for features in batches:
        distances.add(features)
    place = np.array(list(itertools.product(range(0, 8, 2), range(0, 24, 8), range(0, 24, 8))), dtype=float)
    offset = place[:, None] - place
    apart = [np.hypot(offset[..., 1], offset[..., 2]), np.abs(offset[..., 0])]
    block, rotation = encoder.vit.blocks[1], encoder.vit.rotation()
    q, k, _ = block.query_key_value(torch.cat([features[1] for features in batches]), rotation)  # type: ignore[operator]
    score = np.einsum("bhqd,bhkd->bhqk", q.double().numpy(), k.double().numpy()) / np.sqrt(q.shape[-1])
    weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    for metric, distance in zip(ATTENTION, apart, strict=True):
        wanted = (weight * distance).sum(-1).mean((0, 2))
        assert distances.by_head(metric, 2) == pytest.approx(wanted, rel=1e-5)
