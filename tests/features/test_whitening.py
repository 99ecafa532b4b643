"""Whitening against scikit-learn's covariance, and on vectors that share most of what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from layerlock.features.neighbours import leave_one_out
from layerlock.features.whitening import whitening


def vectors(videos: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    mixed = torch.randn(videos, width, generator=draws) @ torch.randn(width, width, generator=draws)
    return mixed + 30 * torch.ones(width)


@pytest.mark.parametrize("videos", [5, 40, 2_000])
def test_the_map_whitens_ledoit_and_wolfs_covariance(videos: int) -> None:
    x = vectors(videos)
    found = whitening(x)
    covariance = ledoit_wolf(x.double().numpy())[0]
    by = found.map_dd.numpy()
    np.testing.assert_allclose(by @ covariance @ by, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(by, by.T, atol=1e-9)
    np.testing.assert_allclose(found.apply(x).mean(0).numpy(), np.zeros(8), atol=1e-4)


def test_of_many_videos_the_covariance_becomes_one() -> None:
    x = vectors(4_000)
    np.testing.assert_allclose(np.cov(whitening(x).apply(x).numpy().T), np.eye(8), atol=0.2)


def test_what_videos_share_no_longer_hides_what_tells_them_apart() -> None:
    """Classes differ in one of eight directions, in which videos vary less than in others; the mean is far away."""
    draws = torch.Generator().manual_seed(0)
    label_v, x = torch.arange(300) % 2, torch.randn(300, 8, generator=draws)
    x[:, 0] = 0.15 * x[:, 0] + 0.6 * label_v
    x = x + 30
    plain, white = (leave_one_out(each, label_v).average_precision_q.mean() for each in (x, whitening(x).apply(x)))
    assert white > plain + 0.05


@pytest.mark.parametrize(("x", "message"), [(torch.ones(9, 4), "same"), (torch.full((9, 4), torch.nan), "finite")])
def test_what_cannot_be_whitened_is_said(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whitening(x)
