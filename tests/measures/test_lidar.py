"""LiDAR against its definition in numpy and scipy, and on features whose rank is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from torch import Tensor

from layerlock.measures.lidar import DELTA, ViewMoments, lidar


def views(clips: int, count: int, between: Tensor, within: Tensor, seed: int = 0) -> Tensor:
    """Normal features `[clips, count, D]` with these deviations between clips and within them."""
    draws = torch.Generator().manual_seed(seed)
    width = len(between)
    clip = torch.randn(clips, 1, width, generator=draws, dtype=torch.float64) * between
    return 5 + clip + torch.randn(clips, count, width, generator=draws, dtype=torch.float64) * within


def of(x_bvd: Tensor, part: int = 1_000) -> float:
    moments = ViewMoments(x_bvd.shape[-1])
    for rows in x_bvd.split(part):
        moments.add(rows)
    return moments.lidar()


def test_it_is_its_definition_however_clips_are_batched() -> None:
    x = views(40, 3, torch.linspace(0.5, 3, 6), torch.linspace(1, 0.2, 6))
    centre = x.numpy().mean(1)
    off = (x.numpy() - centre[:, None]).reshape(-1, 6)
    within = off.T @ off / (40 * 2)
    between = np.cov(centre.T) - within / 3
    value = eigh(between, within + DELTA * np.trace(within) / 6 * np.eye(6), eigvals_only=True).clip(0)
    share = value[value > 0] / value.sum()
    wanted = np.exp(-(share * np.log(share)).sum())
    assert of(x) == pytest.approx(wanted)
    assert of(x, part=7) == pytest.approx(wanted)
    assert of(1e4 * x) == pytest.approx(wanted)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_it_counts_the_directions_that_tell_clips_apart(rank: int) -> None:
    """Few views do not add directions, and one that views spread over does not count."""
    between = torch.cat([torch.full((rank,), 30.0), torch.zeros(12 - rank)])
    within = torch.ones(12)
    assert of(views(4_000, 2, between, within)) == pytest.approx(rank, rel=0.02)
    within[-1], between[-1] = 1e3, 30
    assert of(views(4_000, 2, between, within)) == pytest.approx(rank, rel=0.02)


def test_of_equal_scatters_it_is_all_directions() -> None:
    scatter = torch.diag(torch.linspace(1, 5, 8)).double()
    assert lidar(scatter, scatter) == pytest.approx(8, rel=1e-4)


@pytest.mark.parametrize(
    "x_bvd",
    [torch.ones(9, 3, 4), torch.arange(9.0)[:, None, None].expand(9, 3, 4), torch.randn(9, 1, 4), torch.randn(1, 3, 4)],
    ids=["constant", "views alike", "one view", "one clip"],
)
def test_where_views_or_clips_do_not_differ_there_is_none(x_bvd: Tensor) -> None:
    assert math.isnan(of(x_bvd))
