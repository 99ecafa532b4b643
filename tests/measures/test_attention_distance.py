"""How far attention reaches, against loops in numpy, and where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerlock.measures.attention import attention_distance


def test_it_is_the_weighted_mean_over_keys() -> None:
    draws = torch.Generator().manual_seed(0)
    q, k, distance = (torch.randn(*shape, generator=draws) for shape in ((2, 3, 4, 5), (2, 3, 7, 5), (4, 7)))
    wanted = np.zeros(3)
    for b, h, i in np.ndindex(2, 3, 4):
        weight = np.exp([float(q[b, h, i] @ k[b, h, j]) / 5**0.5 for j in range(7)])
        wanted[h] += (weight / weight.sum()) @ distance[i].double().numpy() / 8
    assert attention_distance(q, k, distance).tolist() == pytest.approx(wanted, abs=1e-5)


def test_of_uniform_attention_it_is_the_mean_and_of_a_look_at_oneself_nothing() -> None:
    place = torch.arange(6.0)
    distance = (place[:, None] - place).abs()
    one_hot = 1e3 * torch.eye(6)[None, None]
    assert attention_distance(torch.zeros_like(one_hot), one_hot, distance).item() == pytest.approx(35 / 18)
    assert attention_distance(one_hot, one_hot, distance).item() == 0
    assert attention_distance(one_hot, one_hot.roll(1, -1), distance).item() == pytest.approx((5 * 1 + 5) / 6)
