"""CKA against ckatorch and against its definition, with loops, in numpy."""

from __future__ import annotations

import itertools

import ckatorch.core
import numpy as np
import pytest
import torch
from torch import Tensor

from layerlock.measures.similarity import Alignment, grams


def linear_cka(x_nd: Tensor, y_ne: Tensor, *, unbiased: bool = False) -> float:
    """Of all clips as one batch."""
    alignment = Alignment(unbiased=unbiased)
    alignment.add([x_nd, y_ne])
    return float(alignment.cka()[0, 1])


def pair(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 7, generator=draws, dtype=torch.float64) + 1
    return x, torch.cat([x[:, :3] ** 2, torch.randn(rows, 9, generator=draws, dtype=torch.float64)], 1)


def test_the_biased_one_is_ckatorchs() -> None:
    x, y = pair(40)
    assert linear_cka(x, y) == pytest.approx(float(ckatorch.core.cka_base(x, y, kernel="linear")), abs=1e-5)


def test_over_minibatches_the_unbiased_one_is_ckatorchs() -> None:
    x, y = pair(48)
    alignment = Alignment(unbiased=True)
    for part in range(0, 48, 12):
        alignment.add([x[part : part + 12], y[part : part + 12]])
    wanted = ckatorch.core.cka_batch(x.view(4, 12, -1), y.view(4, 12, -1))
    assert float(alignment.cka()[0, 1]) == pytest.approx(float(wanted), abs=1e-5)


def test_batches_count_by_their_clips() -> None:
    x, y = pair(16)
    alignment = Alignment(unbiased=False)
    wanted = torch.zeros(2, 2, dtype=torch.float64)
    for part in slice(12), slice(12, 16):
        alignment.add([x[part], y[part]])
        of_one = grams([x[part], y[part]], unbiased=False).flatten(1)
        clips = part.stop - (part.start or 0)
        wanted = wanted + clips * of_one @ of_one.T / (clips - 1) ** 2
    scale = np.sqrt(float(wanted[0, 0] * wanted[1, 1]))
    assert float(alignment.cka()[0, 1]) == pytest.approx(float(wanted[0, 1]) / scale)


def test_the_unbiased_one_is_the_mean_over_different_clips() -> None:
    """HSIC without bias is a U-statistic: over all ordered quadruples of different clips (Song et al., 2012)."""
    x, y = (value.numpy() for value in pair(7))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m = a @ a.T, b @ b.T
        quadruples = list(itertools.permutations(range(len(a)), 4))
        return float(np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples]))

    wanted = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y), unbiased=True) == pytest.approx(wanted)


def test_independent_features_are_alike_to_the_biased_one_alone() -> None:
    draws = torch.Generator().manual_seed(1)
    x, y = (torch.randn(64, 200, generator=draws) for _ in range(2))
    assert linear_cka(x, y) > 0.5
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1


@pytest.mark.parametrize("unbiased", [False, True])
def test_it_is_one_under_rotation_scale_and_shift(unbiased: bool) -> None:
    x, _ = pair(30)
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    assert linear_cka(x, 3 * x @ rotation + 5, unbiased=unbiased) == pytest.approx(1)


@pytest.mark.parametrize("unbiased", [False, True])
def test_features_that_differ_by_rounding_alone_have_none(unbiased: bool) -> None:
    x, y = pair(10)
    assert np.isnan(linear_cka(x, torch.ones(10, 3), unbiased=unbiased))
    assert np.isnan(linear_cka(x, 3 + 1e-7 * y, unbiased=unbiased))
    assert linear_cka(x, 3 + 1e-3 * x, unbiased=unbiased) == pytest.approx(1, abs=1e-6)


def test_an_unbiased_one_needs_four_clips() -> None:
    x, _ = pair(3)
    with pytest.raises(ValueError, match="3 clips are too few"):
        linear_cka(x, x, unbiased=True)
