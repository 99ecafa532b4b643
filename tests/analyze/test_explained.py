"""What a depth explains of another: all of a linear map, nothing of noise, no figure where nothing varies."""

from __future__ import annotations

import pytest
import torch

from layerlock.analyze.explained import Explained


def test_a_linear_map_is_explained_and_noise_is_not() -> None:
    draws = torch.Generator().manual_seed(0)
    explained = Explained(4, 6)
    turn = torch.randn(6, 6, generator=draws)
    for _ in range(40):
        x, noise = torch.randn(2, 3, 12, 6, generator=draws)
        explained.add([x, 3 * x @ turn + 1, noise, torch.ones(3, 12, 6)])
    share = explained.share()
    assert share[:2, :2].flatten().tolist() == pytest.approx([1] * 4, abs=0.01)
    assert share[0, 2].abs() < 0.1
    assert share[2, 0].abs() < 0.1
    assert share[3].isnan().all()
    assert share[:, 3].isnan().all()


def test_of_too_few_clips_there_is_no_figure() -> None:
    explained = Explained(2, 16)
    assert explained.share().isnan().all()
    for _ in range(4):
        explained.add([torch.randn(1, 3, 16), torch.randn(1, 3, 16)])
    assert explained.share().isnan().all()
