"""The dimension of manifolds that have one, and TwoNN with loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_swiss_roll
from sklearn.linear_model import LinearRegression
from torch import Tensor

from layerlock.measures.dimension import intrinsic_dimension


def sphere(dimensions: int, rows: int = 1_000) -> Tensor:
    """Points of a sphere of so many dimensions, turned, scaled and shifted in 30."""
    draws = torch.Generator().manual_seed(dimensions)
    x = torch.nn.functional.normalize(torch.randn(rows, dimensions + 1, generator=draws), dim=1)
    return 7 * x @ torch.linalg.qr(torch.randn(30, 30, generator=draws))[0][: dimensions + 1] + 3


@pytest.mark.parametrize("dimensions", [1, 2, 4, 8])
def test_it_is_that_of_spheres(dimensions: int) -> None:
    assert intrinsic_dimension(sphere(dimensions)) == pytest.approx(dimensions, rel=0.15)


def test_it_is_that_of_a_curved_sheet() -> None:
    roll = torch.from_numpy(make_swiss_roll(1_500, random_state=0)[0])
    assert intrinsic_dimension(roll) == pytest.approx(2, rel=0.1)


def test_it_is_twonn_with_loops_and_rows_that_are_there_twice_do_not_count() -> None:
    x = torch.cat([sphere(3, 60), sphere(3, 60)[:5]])
    rows = x.double().numpy()
    ratios = []
    for i, row in enumerate(rows):
        near, second = sorted(float(np.linalg.norm(row - other)) for j, other in enumerate(rows) if j != i)[:2]
        ratios += [second / near] if near > 0 else []
    assert len(ratios) == 55
    ratios = sorted(ratios)[: math.floor(0.9 * 55)]
    share = np.arange(1, len(ratios) + 1) / 55
    line = LinearRegression(fit_intercept=False).fit(np.log(ratios)[:, None], -np.log(1 - share))
    assert intrinsic_dimension(x) == pytest.approx(line.coef_[0], rel=1e-4)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.ones(50, 3), "features do not vary"),
        (3 + 1e-7 * sphere(2), "features do not vary"),
        (torch.eye(3), "3 clips are too few"),
        (torch.eye(9), "no clip has one nearest neighbour"),
        (torch.eye(5).repeat(2, 1), "no clip has one nearest neighbour"),
    ],
    ids=["constant", "rounding", "few", "all equally far", "each twice"],
)
def test_where_there_is_none_it_says_why(x: Tensor, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        intrinsic_dimension(x)
