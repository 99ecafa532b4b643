"""Ranks against numpy, on features whose rank is known, and where nothing varies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from layerlock.measures.moments import Moments
from layerlock.measures.rank import alpha_req, effective_rank, participation_ratio, rankme


def features(rows: int, width: int, seed: int = 0) -> Tensor:
    scale = torch.linspace(0.1, 3, width)
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale + 1


def entropy_rank(values: np.ndarray) -> float:
    share = values[values > 1e-12] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize(("rows", "width"), [(60, 12), (10, 24)], ids=["more rows", "more dimensions"])
def test_ranks_are_numpys(rows: int, width: int) -> None:
    x = features(rows, width).double()
    moments = Moments(width)
    for part in x.split(7):
        moments.add(part)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)).clip(0)
    assert effective_rank(moments.centred()) == pytest.approx(entropy_rank(eigenvalues))
    assert participation_ratio(moments.centred()) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert rankme(moments.uncentred()) == pytest.approx(entropy_rank(np.linalg.svd(x.numpy(), compute_uv=False)))


def test_equal_directions_are_counted() -> None:
    x = torch.cat([torch.eye(6), -torch.eye(6)]) @ torch.eye(6, 10)
    moments = Moments.of(x)
    found = [effective_rank(moments.centred()), participation_ratio(moments.centred()), rankme(moments.uncentred())]
    assert found == pytest.approx([6, 6, 6])


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.5])
def test_the_exponent_of_a_power_law_is_found_however_large_its_values(exponent: float) -> None:
    eigenvalues = torch.arange(1, 65, dtype=torch.float64) ** -exponent
    assert alpha_req(eigenvalues) == pytest.approx(exponent)
    assert alpha_req(1e6 * eigenvalues) == pytest.approx(exponent)


@pytest.mark.parametrize("x", [torch.zeros(9, 4), 3 + 1e-7 * features(90, 4)], ids=["zeros", "rounding"])
def test_where_nothing_varies_there_is_no_rank(x: Tensor) -> None:
    moments = Moments.of(x)
    ranks = [effective_rank(moments.centred()), participation_ratio(moments.centred()), alpha_req(moments.centred())]
    assert all(math.isnan(value) for value in ranks)
    assert math.isnan(rankme(moments.uncentred())) is not bool(x.any())
