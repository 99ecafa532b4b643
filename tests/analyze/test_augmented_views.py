"""Augmented views of clips."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny import CLIP, Noise

from layerlock.analyze.views import random_view
from layerlock.data import collate


def test_views_are_those_of_their_clip_and_number() -> None:
    clip = replace(CLIP, flip=False)
    samples = Noise(clip).samples(0) + Noise(clip).samples(1) + Noise(clip).samples(2)
    batch = collate(samples, clip.size)
    first, second = (random_view(batch, clip, number, 0) for number in range(2))
    assert first.shape == (3, clip.frames, 3, clip.size, clip.size)
    assert first.dtype == torch.uint8
    assert (first != second).flatten(1).any(1).all()
    assert torch.equal(random_view(batch.slice(2, 3), clip, 1, 0), second[2:])
    assert not torch.equal(random_view(batch, clip, 0, 1), first)
