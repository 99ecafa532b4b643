"""Masks: exact counts, uniform, the same however a batch is split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerlock.learn.masking import RandomMasking, random_subset


@pytest.mark.parametrize(("keep", "tokens", "count"), [(0.05, 1568, 78), (0.10, 1568, 157), (0.15, 144, 22)])
def test_exactly_the_rounded_share_is_kept(keep: float, tokens: int, count: int) -> None:
    masking = RandomMasking(keep=keep)
    context = masking.context(0, torch.arange(20), tokens)
    assert masking.count(tokens) == count
    assert context.shape == (20, count)


@given(
    indices=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    tokens=st.integers(2, 60),
    keep=st.floats(0.05, 0.9),
)
def test_positions_are_distinct_ascending_and_depend_on_their_own_index(
    indices: list[int], tokens: int, keep: float
) -> None:
    masking = RandomMasking(keep=keep)
    together = masking.context(5, torch.tensor(indices), tokens)
    assert (together.diff(dim=1) > 0).all()
    assert ((together >= 0) & (together < tokens)).all()
    for row, index in zip(together, indices, strict=True):
        assert torch.equal(masking.context(5, torch.tensor([index]), tokens)[0], row)


def test_every_place_and_time_is_kept_equally_often() -> None:
    grid = (8, 7, 7)
    context = RandomMasking(keep=0.05).context(0, torch.arange(4_000), 8 * 7 * 7)
    counts = np.bincount(context.flatten().numpy(), minlength=8 * 7 * 7).reshape(grid)
    for axes in ((1, 2), (0, 2), (0, 1), ()):
        observed = counts.sum(axis=axes).flatten() if axes else counts.flatten()
        assert stats.chisquare(observed).pvalue > 0.001


def test_pairs_of_tokens_are_kept_together_as_often_as_chance() -> None:
    kept = torch.zeros(20_000, 12)
    kept.scatter_(1, random_subset(1, "context", torch.arange(20_000), 12, 3), 1.0)
    together = (kept.T @ kept)[~torch.eye(12, dtype=torch.bool)]
    share = 20_000 * 3 * 2 / (12 * 11)
    assert (together - share).abs().max() < 5 * share**0.5


def test_seeds_and_purposes_give_other_masks() -> None:
    index = torch.arange(8)
    masks = [random_subset(seed, purpose, index, 100, 10) for seed, purpose in ((0, "a"), (1, "a"), (0, "b"))]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("keep", "tokens"), [(0.0, 100), (1.0, 100), (-0.1, 100), (0.01, 20), (0.99, 10)])
def test_shares_that_leave_nothing_or_everything_are_problems(keep: float, tokens: int) -> None:
    assert RandomMasking(keep=keep).problems(tokens)
    assert not RandomMasking(keep=0.5).problems(tokens)
