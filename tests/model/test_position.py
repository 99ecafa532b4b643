"""3D rotations against a loop written from their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from layerlock.model.position import Rotation, grid_coordinates, rotate, rotation_table, sincos_table

FRACTIONS = (0.10, 0.25, 0.25)


def by_loop(x_nd: np.ndarray, grid: tuple[int, int, int], fractions: tuple[float, ...]) -> np.ndarray:
    """Pair i of an axis, (x[i], x[i + p]) of its slice, turned by position * 10000 ** (-i / p)."""
    y, width = x_nd.copy(), x_nd.shape[1]
    for n, position in enumerate(np.ndindex(*grid)):
        begin = 0
        for axis in range(3):
            p = math.floor(fractions[axis] * width / 2)
            for i in range(p):
                angle = position[axis] * 10_000 ** (-i / p)
                a, b = x_nd[n, begin + i], x_nd[n, begin + i + p]
                y[n, begin + i] = a * math.cos(angle) - b * math.sin(angle)
                y[n, begin + i + p] = a * math.sin(angle) + b * math.cos(angle)
            begin += 2 * p
    return y


def double(rotation: Rotation) -> Rotation:
    return Rotation(rotation.cos.double(), rotation.sin.double(), rotation.pairs)


@pytest.mark.parametrize("width", [24, 50, 64])
def test_rotation_is_the_loops(width: int) -> None:
    grid = (3, 4, 5)
    x = np.random.default_rng(0).normal(size=(60, width))
    found = rotate(torch.from_numpy(x), double(rotation_table(grid, width, FRACTIONS, 10_000.0)))
    assert np.abs(found.numpy() - by_loop(x, grid, FRACTIONS)).max() < 1e-6


@pytest.mark.parametrize(("width", "pairs"), [(1664, (83, 208, 208)), (1792, (89, 224, 224)), (768, (38, 96, 96))])
def test_each_axis_has_the_floor_of_its_share_of_pairs_and_the_rest_is_left_alone(
    width: int, pairs: tuple[int, int, int]
) -> None:
    rotation = rotation_table((2, 2, 2), width, FRACTIONS, 10_000.0)
    assert rotation.pairs == pairs
    x = torch.randn(8, width)
    turned = rotate(x, rotation)
    assert torch.equal(turned[:, 2 * sum(pairs) :], x[:, 2 * sum(pairs) :])
    assert (turned[-1, : 2 * sum(pairs)] != x[-1, : 2 * sum(pairs)]).any()
    assert torch.equal(turned[0], x[0]), "the first token stands at the origin"


@given(width=st.sampled_from([20, 32, 48]), seed=st.integers(0, 1000))
def test_rotation_keeps_norms_and_makes_products_depend_on_distance(width: int, seed: int) -> None:
    grid = (1, 1, 6)
    q, k = torch.randn(2, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = double(rotation_table(grid, width, FRACTIONS, 10_000.0))
    qs, ks = rotate(q.expand(6, width), rotation), rotate(k.expand(6, width), rotation)
    assert torch.allclose(qs.norm(dim=1), q.norm().expand(6), atol=1e-6)
    assert torch.allclose(qs[0] @ ks[2], qs[3] @ ks[5], atol=1e-5)


def naive(x: Tensor, rotation: Rotation) -> Tensor:
    """The same by indices, for autograd to follow."""
    swapped, at = list(range(x.shape[-1])), 0
    for p in rotation.pairs:
        swapped[at : at + 2 * p] = [*range(at + p, at + 2 * p), *range(at, at + p)]
        at += 2 * p
    return x * rotation.cos + x[..., swapped] * rotation.sin


def test_the_gradient_is_autograds_of_a_naive_rotation() -> None:
    rotation = double(rotation_table((2, 3, 3), 24, FRACTIONS, 10_000.0))
    x = torch.randn(2, 18, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 18, 24, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((naive(x, rotation) * weight).sum(), x)
    (found,) = torch.autograd.grad((rotate(x, rotation) * weight).sum(), x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-13)
    assert torch.equal(rotate(x, rotation), rotate(x.detach(), rotation))
    assert torch.autograd.gradcheck(lambda y: rotate(y, rotation), (x,))


def test_tables_gathered_by_token_turn_as_the_whole_grid_does() -> None:
    rotation = rotation_table((2, 3, 3), 24, FRACTIONS, 10_000.0)
    x, index = torch.randn(2, 18, 24), torch.tensor([[4, 0, 17], [1, 2, 3]])
    whole = rotate(x, rotation)
    parts = rotate(torch.stack([x[b, index[b]] for b in range(2)]), rotation.at(index))
    assert torch.equal(parts, torch.stack([whole[b, index[b]] for b in range(2)]))


def test_coordinates_run_time_slowest_width_fastest() -> None:
    assert grid_coordinates((2, 2, 3)).tolist() == [list(map(float, p)) for p in np.ndindex(2, 2, 3)]


@pytest.mark.parametrize("width", [6, 24, 32, 64, 128, 256, 384, 1664])
def test_sincos_tables_are_the_authors_where_a_sixth_of_the_width_is_not_whole_too(width: int) -> None:
    """Of each axis `2 ceil(D / 6)` dimensions, sines before cosines, one after the other, cut to the width."""
    each = 2 * math.ceil(width / 6)
    rates = [10_000 ** (-2 * i / each) for i in range(each // 2)]
    rows = [
        [f(place * rate) for place in places for f in (math.sin, math.cos) for rate in rates][:width]
        for places in np.ndindex(3, 4, 5)
    ]
    assert torch.allclose(sincos_table((3, 4, 5), width), torch.tensor(rows), atol=1e-6)


def test_sincos_tables_are_bounded_distinct_and_split_over_the_axes() -> None:
    table = sincos_table((3, 4, 5), 30)
    assert table.shape == (60, 30)
    distance = torch.cdist(table, table) + torch.eye(60)
    assert distance.min() > 1e-3
    time = table.reshape(3, 4, 5, 30)[..., :10]
    assert torch.equal(time, time[:, :1, :1].expand_as(time))
    angle = torch.arange(3).float()
    assert torch.allclose(time[:, 0, 0, 0], angle.sin(), atol=1e-6)
    assert torch.allclose(time[:, 0, 0, 5], angle.cos(), atol=1e-6)
