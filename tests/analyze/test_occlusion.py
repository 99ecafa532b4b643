"""Clips of which one patch is seen."""

from __future__ import annotations

import pytest
import torch

from layerlock.analyze.occlusion import one_patch


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("size", [32, 28], ids=["patches of 4", "patches of 3 or 4"])
def test_one_patch_of_each_part_is_seen_in_all_frames_and_the_rest_is_black(parts: int, size: int) -> None:
    video = torch.randint(1, 256, (50, 3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = one_patch(video, torch.arange(50), 7, parts=parts)
    kept = seen != 0
    assert torch.equal(seen[kept], video[kept])
    assert (kept == kept[:, :1, :1]).all()
    for half in kept[:, 0, 0].chunk(parts, -1):
        rows, columns = half.any(2).sum(1), half.any(1).sum(1)
        assert torch.equal(half.sum((1, 2)), rows * columns)
        assert {*rows.tolist(), *columns.tolist()} <= {size // 8, -(-size // 8)}
        assert half.any(0).float().mean() > 0.4  # places are everywhere


def test_a_place_is_that_of_its_clip() -> None:
    video = torch.full((6, 1, 3, 16, 16), 9, dtype=torch.uint8)
    together = one_patch(video, torch.arange(6), 0)
    assert torch.equal(one_patch(video[:1], torch.tensor([4]), 0), together[4:5])
    assert not torch.equal(one_patch(video, torch.arange(6), 1), together)
