"""The plan that waits until weight norms no longer grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from layerlock.learn.observed import conclusion, followed, observes
from layerlock.learn.plan import timeline
from layerlock.learn.plans import Auto, Progressive
from layerlock.learn.plans.auto import AutoPlan

AUTO = Auto(target="frozen", lines=4, patience=2, threshold=0.25, earliest=0.1)
Norms = Callable[[int], Sequence[float]]
STEPS, ENCODER, DEPTH = 400, 8, 10


def saturating(step: int) -> list[float]:
    """Of the patch projection and ten blocks: the deeper the later, from 10 towards 15."""
    return [10 + 5 * (1 - math.exp(-step / (10 + 5 * part))) for part in range(DEPTH + 1)]


def log_lines(norms: Norms, lr: Callable[[int], float] = lambda step: 1.0, every: int = 2) -> list[dict[str, Any]]:
    return [{"step": n, "lr": lr(n), "weight_norms": list(norms(n))} for n in range(every, STEPS + 1, every)]


def switches(settings: Auto, lines: list[dict[str, Any]]) -> list[tuple[int, int]]:
    plan = settings.build(STEPS, ENCODER, DEPTH)
    return [(switch.step, switch.stage.frozen) for switch in followed(plan, STEPS, lines)[1:]]


def expected(settings: Auto, lines: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The same by the words of the docstring alone, for blocks that freeze one by one at a constant rate."""
    found, frozen, begin, row, most = list[tuple[int, int]](), 0, 0, 0, math.floor(0.75 * ENCODER)
    fastest = [0.0] * (DEPTH + 1)
    for at in range(len(lines) - 1):
        if at - begin < settings.lines:
            continue
        old, new = lines[at - settings.lines]["weight_norms"], lines[at]["weight_norms"]
        growth = [(b - a) / b for a, b in zip(old, new, strict=True)]
        fastest = [max(a, b) for a, b in zip(fastest, growth, strict=True)]
        wanted = [0, 1] if frozen == 0 else [frozen + 1]
        flat = frozen < most and all(growth[part] <= settings.threshold * fastest[part] for part in wanted)
        row = row + 1 if flat else 0
        if row >= settings.patience and lines[at]["step"] >= settings.earliest * STEPS:
            frozen, begin, row = frozen + 1, at, 0
            found.append((lines[at]["step"], frozen))
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, {"lines": 1}, {"lines": 9, "patience": 5}, {"threshold": 0.6}, {"threshold": 0.01}, {"earliest": 0.5}],
)
def test_blocks_freeze_in_the_order_in_which_their_norms_stop_growing(changes: dict[str, Any]) -> None:
    settings, lines = replace(AUTO, **changes), log_lines(saturating)
    found = switches(settings, lines)
    assert found == expected(settings, lines)
    assert [frozen for _, frozen in found] == list(range(1, len(found) + 1))
    assert found
    assert found == switches(settings, lines), "the plan that was asked remembers nothing"


def test_a_falling_learning_rate_alone_freezes_nothing() -> None:
    cosine = lambda step: 0.5 * (1 + math.cos(math.pi * step / STEPS))  # noqa: E731
    travelled = [0.0]
    for step in range(2, STEPS + 1, 2):
        travelled.append(travelled[-1] + 2 * cosine(step))
    growing = lambda step: [math.exp(1e-3 * travelled[step // 2])] * (DEPTH + 1)  # noqa: E731
    lines = log_lines(growing, cosine)
    assert switches(AUTO, lines) == []
    assert switches(AUTO, [line | {"lr": 1.0} for line in lines]), "not over the rate it would"


def test_a_norm_that_falls_does_not_grow_and_one_that_never_grew_is_waited_for() -> None:
    rises_and_falls = lambda step: [10 + min(step, 80) / 40 - max(step - 80, 0) / 100] * (DEPTH + 1)  # noqa: E731
    assert switches(AUTO, log_lines(rises_and_falls))[0] == (88, 1), "8 steps up to 86 were the first that end lower"
    only_falls = lambda step: [20 - step / 40] * (DEPTH + 1)  # noqa: E731
    assert switches(AUTO, log_lines(only_falls)) == []
    plan = AUTO.build(STEPS, ENCODER, DEPTH)
    observe(plan, log_lines(only_falls))
    assert "the patch projection and block 1 has never grown; what is waited for" in conclusion(plan)
    plan = AUTO.build(STEPS, ENCODER, DEPTH)
    observe(plan, log_lines(lambda step: [20 - step / 40, *[math.exp(step / 1e3)] * DEPTH]))
    assert "grew at 100% of its fastest at the last line, and that of one of these has never grown" in conclusion(plan)


def observe(plan: AutoPlan, lines: list[dict[str, Any]]) -> None:
    for line in lines[:-1]:
        plan.observe(line["step"], line)


def test_that_nothing_froze_is_said_and_that_something_did_is_not() -> None:
    never = log_lines(lambda step: [math.exp(step / 1e3)] * (DEPTH + 1))
    plan = AUTO.build(STEPS, ENCODER, DEPTH)
    assert conclusion(plan) == "no block froze: growth of weight norms is known from 5 log lines on"
    observe(plan, never)
    assert conclusion(plan) == (
        "no block froze: over the learning rate the weight norm of the patch projection and block 1 grew at 100% of "
        "its fastest at the last line; what is waited for is 25% or less, 2 log lines in a row, not before 10% of "
        "the run"
    )
    assert [step for step, _ in plan.course] == list(range(10, 400, 2))
    plan = AUTO.build(STEPS, ENCODER, DEPTH)
    observe(plan, log_lines(saturating))
    assert conclusion(plan) == ""
    assert conclusion(Progressive().build(STEPS, ENCODER, DEPTH)) == ""


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"first": 2, "jump": 3}, [0, 2, 5, 6]),
        ({"last": 2}, [0, 1, 2]),
        ({"last": 99, "jump": 4}, [0, 1, 5, 8]),
        ({"last": 99, "jump": 4, "freeze_decoder": True}, [0, 1, 5, 9, 10]),
        ({"frozen": "half", "first": 5}, [4, 5, 6]),
    ],
)
def test_no_more_blocks_freeze_than_are_asked_for_and_there(changes: dict[str, Any], frozen: list[int]) -> None:
    settings = replace(AUTO, **changes)
    plan = settings.build(STEPS, ENCODER, DEPTH)
    assert [stage.frozen for stage in plan.stages] == frozen
    assert observes(plan)
    assert timeline(plan, STEPS) == [(0, plan.stages[0])]
    flat = log_lines(lambda step: [10 + min(step, 20) / 10] * (DEPTH + 1))
    found = switches(settings, flat)
    assert [count for _, count in found] == frozen[1:]
    assert found[0][0] == 40, "a tenth of the run"
    reasons = [switch.reason for switch in followed(plan, STEPS, flat)[1:]]
    first = "the patch projection and block 1 grows" if frozen[:2] == [0, 1] else ""
    assert first in reasons[0]
    assert all("0% of its fastest" in reason for reason in reasons)


def test_a_small_encoder_freezes_at_least_one_block_and_lines_without_a_rate_count_for_nothing() -> None:
    assert [stage.frozen for stage in AUTO.build(STEPS, 1, 2).stages] == [0, 1]
    assert switches(AUTO, log_lines(saturating, lambda step: 0.0)) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lines": 0}, "plan.lines: 0 is not positive"),
        ({"patience": -1}, "plan.patience: -1"),
        ({"threshold": 0.0}, "plan.threshold: 0.0 must be between 0 and 1"),
        ({"threshold": 1.0}, "plan.threshold: 1.0"),
        ({"earliest": 1.5}, "plan.earliest: 1.5 must be from 0 to 1"),
        ({"jump": 0}, "plan.jump: 0"),
        ({"last": -1}, "plan.last: -1 is negative"),
        ({"target": "pixels", "standardized": True}, "only used with --plan.target frozen"),
    ],
)
def test_settings_of_it_that_cannot_be_are_named(changes: dict[str, Any], word: str) -> None:
    (found,) = replace(AUTO, **changes).problems()
    assert word in found
