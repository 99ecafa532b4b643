"""Intervals of means and of leads, against scipy's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from layerlock.evaluation.intervals import FEWEST, bootstrap, proves
from layerlock.evaluation.scoring import Scores


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def scores(**score_v: torch.Tensor) -> Scores:
    """Of readouts by name; a second metric is there to be left alone."""
    count = len(next(iter(score_v.values())))
    return Scores(
        score_vm={name: torch.stack([values, noise(count, seed=9)], 1) for name, values in score_v.items()},
        predicted_v={},
        label_v=torch.zeros(count),
        video_v=torch.arange(count),
        left_out=(),
    )


def test_the_bootstrap_interval_agrees_with_scipys() -> None:
    values = noise(200).exp()
    ours = bootstrap(values, draws_count=4_000)
    theirs = stats.bootstrap((values.numpy(),), np.mean, n_resamples=4_000, method="percentile", rng=0)
    assert ours.mean == pytest.approx(float(values.mean()), rel=1e-6)
    low, high = theirs.confidence_interval
    assert ours.low == pytest.approx(low, abs=0.03)
    assert ours.high == pytest.approx(high, abs=0.03)


def test_a_lead_is_scipys_paired_bootstrap() -> None:
    ours, theirs = noise(100).exp(), noise(100).exp() * 0.8 + noise(100, seed=1) * 0.2
    lead = scores(a=ours, b=theirs).ahead("a", "b", higher_is_better=True, seed=0)
    wanted = stats.bootstrap(
        (ours.numpy(), theirs.numpy()),
        lambda a, b, axis: np.mean(a - b, axis),
        paired=True,
        n_resamples=4_000,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert lead.mean == pytest.approx(float((ours - theirs).mean()), rel=1e-5)
    assert (lead.low, lead.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)


def test_a_small_lead_on_every_clip_is_proven_where_intervals_overlap() -> None:
    level, count = noise(50), 50
    found = scores(better=level + 0.1 + noise(count, seed=1) * 0.05, worse=level)
    ours, other = (found.interval(name, 0, 0) for name in ("better", "worse"))
    assert ours.low < other.high
    for higher in (True, False):
        ahead, behind = ("better", "worse") if higher else ("worse", "better")
        assert proves(found.ahead(ahead, behind, higher_is_better=higher, seed=0), count)
        assert not proves(found.ahead(behind, ahead, higher_is_better=higher, seed=0), count)


def test_chance_few_clips_and_equal_scores_prove_nothing() -> None:
    found = scores(a=noise(50), b=noise(50, seed=1) - 0.05)
    assert not proves(found.ahead("a", "b", higher_is_better=True, seed=0), 50)
    lead = found.ahead("a", "a", higher_is_better=True, seed=0)
    assert lead.mean == 0
    assert not proves(lead, 50)
    assert not proves(replace(lead, low=0.1), FEWEST - 1)
    assert proves(replace(lead, low=0.1), FEWEST)
