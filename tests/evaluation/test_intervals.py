"""Intervals of means and of leads: against scipy's, and against the truth where videos are not independent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import r2_score

from layerlock.evaluation.intervals import FEWEST, SHOWN_FROM, Interval, bootstrap, proves
from layerlock.evaluation.score import Scores
from layerlock.evaluation.tasks import Metric


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(**score_v: torch.Tensor) -> Scores:
    """Of readouts by name; a second metric is there to be left alone."""
    count = len(next(iter(score_v.values())))
    return Scores(
        metrics=tuple(Metric(name=name, higher_is_better=True) for name in ("first", "second")),
        score_svm={name: torch.stack([values, noise(count, seed=9)], 1)[None] for name, values in score_v.items()},
        video_v=torch.arange(count),
        group_v=torch.arange(count),
    )


def test_many_videos_have_scipys_bootstrap_interval() -> None:
    values = noise(400).exp()
    ours = bootstrap(values, draws=4_000)
    theirs = stats.bootstrap((values.numpy(),), np.mean, n_resamples=4_000, method="percentile", rng=0)
    assert ours.mean == pytest.approx(float(values.mean()), rel=1e-6)
    low, high = theirs.confidence_interval
    assert ours.low == pytest.approx(low, abs=0.02)
    assert ours.high == pytest.approx(high, abs=0.02)


def test_groups_are_drawn_whole() -> None:
    """Copies of a video teach nothing: the interval is that of the videos; by clips it would be half as wide."""
    values, group = noise(60).repeat_interleave(4), torch.arange(60).repeat_interleave(4)
    whole, copies = bootstrap(noise(60)), bootstrap(values, group)
    assert (copies.low, copies.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
    assert bootstrap(values).high - bootstrap(values).low < 0.6 * (whole.high - whole.low)
    mixed = torch.randperm(240, generator=torch.Generator().manual_seed(1))
    again = bootstrap(values[mixed], 7 * group[mixed])
    assert (again.low, again.high) == pytest.approx((copies.low, copies.high), abs=1e-12)


def test_a_lead_is_scipys_paired_bootstrap() -> None:
    ours, theirs = noise(400).exp(), noise(400).exp() * 0.8 + noise(400, seed=1) * 0.2
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
    assert (lead.low, lead.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_a_small_lead_on_every_video_is_shown_where_intervals_overlap() -> None:
    level, count = noise(50), 50
    found = scores(better=level + 0.1 + noise(count, seed=1) * 0.05, worse=level)
    ours, other = (found.interval(name, 0, 0) for name in ("better", "worse"))
    assert ours.low < other.high
    for higher in (True, False):
        ahead, behind = ("better", "worse") if higher else ("worse", "better")
        assert proves(found.ahead(ahead, behind, higher_is_better=higher, seed=0), count)
        assert not proves(found.ahead(behind, ahead, higher_is_better=higher, seed=0), count)


def test_chance_few_groups_and_equal_scores_prove_nothing() -> None:
    found = scores(a=noise(50), b=noise(50, seed=1) - 0.05)
    assert not proves(found.ahead("a", "b", higher_is_better=True, seed=0), 50)
    lead = found.ahead("a", "a", higher_is_better=True, seed=0)
    assert lead.mean == 0
    assert not proves(lead, 50)
    assert not proves(replace(lead, low=0.1), FEWEST - 1)
    assert proves(replace(lead, low=0.1), FEWEST)


@pytest.mark.parametrize("groups", range(1, SHOWN_FROM))
def test_a_few_groups_have_no_interval_however_many_clips(groups: int) -> None:
    found = bootstrap(1 + 0.01 * noise(80), torch.arange(80) % groups)
    assert found == Interval(found.mean)
    assert not found.known
    assert not proves(found, groups)


def test_several_comparisons_are_covered_at_once() -> None:
    one, four = (bootstrap(noise(400), compared=compared, draws=20_000) for compared in (1, 4))
    ratio = (four.high - four.low) / (one.high - one.low)
    assert ratio == pytest.approx(stats.norm.ppf(1 - 0.025 / 4) / stats.norm.ppf(0.975), rel=0.05)


def test_the_spread_of_seeds_is_in_the_interval() -> None:
    video_v, seed_s = 0.1 * noise(100), noise(20, seed=1)
    several = bootstrap(video_v + seed_s[:, None], draws=8_000)
    error = (0.01 / 100 + float(seed_s.var()) / 20) ** 0.5
    assert several.mean == pytest.approx(float(video_v.mean() + seed_s.mean()), abs=1e-6)
    assert (several.high - several.low) / 2 == pytest.approx(stats.t.ppf(0.975, 19) * error, rel=0.12)
    same = bootstrap(video_v.expand(3, -1))
    alone = bootstrap(video_v)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=0.005)


def clustered(groups: int, clips: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Leads whose truth is zero, with a correlation of 0.5 between the clips of a video."""
    lead_gc = 0.5**0.5 * (noise(groups, 1, seed=2 * seed) + noise(groups, clips, seed=2 * seed + 1))
    return lead_gc.flatten(), torch.arange(groups).repeat_interleave(clips)


@pytest.mark.parametrize(("groups", "clips"), [(20, 10), (50, 4)])
def test_the_truth_is_missed_as_often_as_said_and_by_clips_far_more_often(groups: int, clips: int) -> None:
    trials = [clustered(groups, clips, seed) for seed in range(200)]
    by_group = [bootstrap(lead, group, draws=500) for lead, group in trials]
    by_clip = [bootstrap(lead, draws=200) for lead, _ in trials]
    missed, before = (np.mean([not i.low <= 0 <= i.high for i in found]) for found in (by_group, by_clip))
    assert missed <= 0.09
    assert before >= 0.2
    assert np.mean([proves(i, groups) for i in by_group]) <= 0.06


def test_two_videos_of_forty_clips_give_no_verdict() -> None:
    for seed in range(20):
        lead, group = clustered(2, 40, seed)
        assert not proves(bootstrap(lead + 5, group), 2)


def test_a_share_of_the_variance_is_drawn_as_a_ratio() -> None:
    truth, error = noise(200), 0.4 * noise(200, seed=1)
    spread = (truth - truth.mean()).square()
    found = bootstrap(spread - error.square(), weight_v=spread)
    assert found.mean == pytest.approx(r2_score(truth, truth + error))
    rows = np.random.default_rng(0).integers(200, size=(4000, 200))
    drawn = 1 - (error.square().numpy()[rows].sum(1) / spread.numpy()[rows].sum(1))
    wanted = np.quantile(drawn, (0.025, 0.975))
    assert [found.low, found.high] == pytest.approx(wanted, abs=0.1 * (wanted[1] - wanted[0]))
    same = bootstrap(error, weight_v=torch.ones(200), seed=3)
    plain = bootstrap(error, seed=3)
    assert (same.mean, same.low, same.high) == pytest.approx((plain.mean, plain.low, plain.high))
