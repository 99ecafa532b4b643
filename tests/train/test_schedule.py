"""The learning rate as a table."""

from __future__ import annotations

import math

import pytest
from tiny import lock_stage

from layerlock.config import OptimConfig
from layerlock.learn.plan import Switch
from layerlock.learn.plans import Blockwise
from layerlock.train.schedule import learning_rate

PLAIN = OptimConfig(lr=1.0, warmup=0.1, mini_warmup=0.02)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5), (99, 0.5 * (1 + math.cos(math.pi * 89 / 90)))],
)
def test_rate_warms_up_and_falls_as_a_cosine(step: int, rate: float) -> None:
    assert learning_rate(PLAIN, 100, step, ()) == pytest.approx(rate)


def test_rate_ends_at_zero_or_where_told() -> None:
    assert learning_rate(PLAIN, 100_000, 99_999, ()) < 1e-8
    assert learning_rate(PLAIN, 100, 100, ()) == pytest.approx(0.0)
    assert learning_rate(OptimConfig(lr=1.0, end_lr=0.25), 100, 100, ()) == pytest.approx(0.25)


def test_every_switch_is_followed_by_a_mini_warmup_and_only_the_last_counts() -> None:
    log = (Switch(300, lock_stage(1)), Switch(600, lock_stage(2)))
    for step in range(600, 640):
        share = min(1.0, (step - 599) / 20)
        assert learning_rate(PLAIN, 1000, step, log) == pytest.approx(share * learning_rate(PLAIN, 1000, step, ()))


def test_mini_warmups_can_be_left_out_and_last_a_step_at_least() -> None:
    log = (Switch(50, lock_stage(1)),)
    none = OptimConfig(lr=1.0, warmup=0.0, mini_warmup=0.0)
    short = OptimConfig(lr=1.0, warmup=0.0, mini_warmup=1e-9)
    for step in (50, 51):
        assert learning_rate(none, 100, step, log) == learning_rate(none, 100, step, ())
        assert learning_rate(short, 100, step, log) == learning_rate(none, 100, step, ())


def test_no_warmup_begins_at_the_top() -> None:
    assert learning_rate(OptimConfig(lr=2.0, warmup=0.0), 10, 0, ()) == 2.0


def test_cycles_are_runs_of_their_own_one_after_the_other() -> None:
    whole = OptimConfig(lr=1.0, start_lr=0.1, end_lr=0.05, warmup=0.1, cycles=4)
    one = OptimConfig(lr=1.0, start_lr=0.1, end_lr=0.05, warmup=0.4)
    alone = [learning_rate(one, 25, step, ()) for step in range(25)]
    assert [learning_rate(whole, 100, step, ()) for step in range(100)] == pytest.approx(alone * 4)


@pytest.mark.parametrize("steps", [7, 10, 50, 99, 1_001])
def test_cycles_begin_where_sequential_parts_do(steps: int) -> None:
    optim = OptimConfig(lr=1.0, warmup=0.0, cycles=5)
    plan = Blockwise(regime="sequential", parts=5).build(steps, 10, 10)
    tops = [step for step in range(steps) if learning_rate(optim, steps, step, ()) == 1.0]
    assert tops == [begin for begin, _ in plan.timeline]
