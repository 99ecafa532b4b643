"""Collapse figures against numpy, warnings when they turn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import learner
from torch import Tensor

from layerlock.learn.learner import StepFigures
from layerlock.measures.tokens import token_cosine
from layerlock.train.meter import Meter
from layerlock.train.monitors import CollapseMonitor, effective_rank, weight_norms


def features(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    scale = torch.linspace(0.1, 3, shape[-1])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + 1


@pytest.mark.parametrize("shape", [(2, 30, 12), (2, 5, 24)], ids=["more tokens", "more dimensions"])
def test_effective_rank_is_numpys(shape: tuple[int, int, int]) -> None:
    x = features(shape)
    share = np.linalg.eigvalsh(np.cov(x.flatten(0, 1).double().numpy().T)).clip(1e-15)
    share = share / share.sum()
    assert effective_rank(x) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_effective_rank_counts_equal_directions() -> None:
    x = torch.cat([torch.eye(6), -torch.eye(6)])[None] @ torch.eye(6, 10)
    assert effective_rank(x) == pytest.approx(6, rel=1e-4)


def test_weight_norms_are_by_layer_the_projection_first() -> None:
    made = learner()
    parts = [made.vit.embed, *made.vit.blocks]
    wanted = [
        np.sqrt(sum(float((p.detach().double().numpy() ** 2).sum()) for p in part.parameters())) for part in parts
    ]
    assert weight_norms(made) == pytest.approx(wanted, rel=1e-5)


def test_figures_are_taken_from_watched_steps_only() -> None:
    losses = {"h1": torch.tensor(0.5)}
    plain = StepFigures(losses=losses, moments={}, features_nd=None)
    assert CollapseMonitor().figures(plain) == {}
    moments_3p = torch.tensor([[3.0, 1.0], [10.0, 4.0], [2.0, 1.0]], dtype=torch.float64)  # variances of 1 and 3
    step = StepFigures(losses=losses, moments={"h1": moments_3p}, features_nd=features((2, 7, 12)))
    found = CollapseMonitor().figures(step)
    assert found["target_variance"] == {"h1": 2.0}
    assert found["explained"] == {"h1": 0.25}
    assert found["effective_rank"] == effective_rank(features((2, 7, 12)))
    assert found["token_cosine"] == token_cosine(features((2, 7, 12)))


def figures(rank: float = 50.0, variance: float = 1.0, cosine: float = 0.2) -> dict[str, object]:
    return {"effective_rank": rank, "token_cosine": cosine, "target_variance": {"h2": variance}}


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"rank": 2.0}, "effective rank"),
        ({"variance": 1e-3}, "variance of target h2"),
        ({"variance": float("nan")}, "variance of target h2"),
        ({"cosine": 0.995}, "cosine"),
    ],
)
def test_a_figure_that_turns_is_warned_of_once_until_it_recovers(bad: dict[str, float], word: str) -> None:
    monitor = CollapseMonitor()
    assert monitor.warnings(figures(), 0.5) == []
    assert monitor.warnings(figures(rank=40.0, variance=0.7, cosine=0.5), 0.5) == []
    (warning,) = monitor.warnings(figures(**bad), 0.5)
    assert word in warning
    assert monitor.warnings(figures(**bad), 0.5) == []
    again = CollapseMonitor(json.loads(json.dumps(monitor.state)))
    assert again.warnings(figures(**bad), 0.5) == [], "what has been said is remembered through a checkpoint"
    assert again.warnings(figures(), 0.5) == []
    assert len(again.warnings(figures(**bad), 0.5)) == 1


def test_a_figure_that_is_as_low_as_can_be_is_warned_of_without_a_better_one_before() -> None:
    monitor = CollapseMonitor()
    assert len(monitor.warnings(figures(rank=1.1, variance=1e-6, cosine=0.999), 0.5)) == 2
    assert monitor.warnings(figures(rank=1.1, variance=1e-6, cosine=0.999), 0.6) == []


def test_the_first_tenth_of_a_run_is_neither_judged_nor_remembered() -> None:
    monitor = CollapseMonitor()
    assert monitor.warnings(figures(rank=300.0), 0.01) == []
    assert monitor.warnings(figures(rank=1.1), 0.09) == []
    assert monitor.warnings(figures(rank=5.0), 0.2) == []


def test_a_slow_decline_is_seen_against_the_best_so_far() -> None:
    monitor = CollapseMonitor()
    found = [monitor.warnings(figures(rank=100 * 0.9**k), 0.5) for k in range(30)]
    assert sum(map(len, found)) == 1
    first = next(k for k, warnings in enumerate(found) if warnings)
    assert 100 * 0.9**first < 20 <= 100 * 0.9 ** (first - 1)


def test_losses_are_averaged_since_the_last_line_and_survive_a_checkpoint() -> None:
    meter = Meter()
    for value in (1.0, 2.0):
        meter.add({"pixels": torch.tensor(value), "h1": torch.tensor(10 * value)})
    again = Meter(meter.pending())
    again.add({"pixels": torch.tensor(6.0), "h1": torch.tensor(0.0)})
    assert again.drain() == {"pixels": 3.0, "h1": 10.0}
    assert again.pending() == {}


def test_the_first_bad_figure_is_found() -> None:
    meter = Meter()
    assert meter.first_bad() is None
    for value in (1.0, float("nan"), float("inf"), 2.0):
        meter.add({"pixels": torch.tensor(1.0), "h1": torch.tensor(value), "gradient_norm": torch.tensor(value)})
    assert meter.first_bad() == (2, "h1")
