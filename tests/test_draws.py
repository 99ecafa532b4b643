"""Random numbers are a pure function of (seed, purpose, index)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerlock import draws

MASK = (1 << 64) - 1
GOLDEN = [[7648928395464373218, 1457871245530180708], [7017200005228320863, 2712897350505118699]]
GOLDEN_KEY = -3112882223685862246


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def oracle(seed: int, purpose: str, index: int, column: int) -> int:
    """`bits` for one number, on unbounded integers."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    row = mix((index * 0x9E3779B97F4A7C15 + int.from_bytes(digest, "little")) & MASK)
    return mix(mix((row + (column + 1) * 0x9E3779B97F4A7C15) & MASK)) & (MASK >> 1)


@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**50), purpose=st.text(max_size=10))
def test_bits_are_splitmix64_of_a_counter(seed: int, index: int, purpose: str) -> None:
    found = draws.bits(seed, purpose, torch.tensor([index]), 3)[0].tolist()
    assert found == [oracle(seed, purpose, index, column) for column in range(3)]


@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**50), count=st.integers(0, 6))
def test_the_numbers_of_one_index_are_those_of_many(seed: int, index: int, count: int) -> None:
    found = draws.uniform(seed, "clip", torch.tensor([index]), count)[0].tolist()
    assert draws.uniform_of_one(seed, "clip", index, count) == found


def test_golden_values_never_change() -> None:
    assert draws.bits(0, "context", torch.tensor([0, 1]), 2).tolist() == GOLDEN
    assert draws.key(7, "weights") == GOLDEN_KEY


@given(indices=st.lists(st.integers(0, 10**9), min_size=1, max_size=6), count=st.integers(1, 9))
def test_a_row_depends_on_its_own_index_alone(indices: list[int], count: int) -> None:
    together = draws.uniform(3, "context", torch.tensor(indices), count)
    for row, index in zip(together, indices, strict=True):
        assert torch.equal(draws.uniform(3, "context", torch.tensor([index]), count)[0], row)


def test_a_longer_row_begins_with_the_shorter_one() -> None:
    index = torch.arange(4)
    assert torch.equal(draws.bits(1, "a", index, 9)[:, :4], draws.bits(1, "a", index, 4))


def test_uniform_numbers_are_in_the_unit_interval_and_pass_a_chi_square() -> None:
    values = draws.uniform(0, "context", torch.arange(2_000), 50).flatten().numpy()
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=100, range=(0, 1))
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, "a", 0), (0, "a", 1)), ((0, "a", 0), (0, "b", 0)), ((0, "a", 0), (1, "a", 0)), ((0, "a", 1), (1, "a", 0))],
)
def test_other_seeds_purposes_and_indices_are_independent(
    first: tuple[int, str, int], second: tuple[int, str, int]
) -> None:
    x, y = (draws.uniform(s, p, torch.tensor([i]), 20_000)[0].numpy() for s, p, i in (first, second))
    table, _, _ = np.histogram2d(x, y, bins=8, range=((0, 1), (0, 1)))
    assert stats.chisquare(table.flatten()).pvalue > 0.001
    assert not np.isin(x, y).any()


def test_columns_of_neighbouring_indices_are_independent() -> None:
    x = draws.uniform(0, "context", torch.arange(5_000), 6).numpy()
    correlation = np.corrcoef(np.concatenate([x[:-1], x[1:]], axis=1).T) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(5_000)


def test_generators_repeat_and_differ_by_purpose() -> None:
    a, b, c = (torch.rand(5, generator=draws.generator(0, purpose)) for purpose in ("w", "w", "v"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
