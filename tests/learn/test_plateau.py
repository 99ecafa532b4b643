"""The plan that waits until a loss no longer falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from layerlock.learn.observed import followed, observes
from layerlock.learn.plan import timeline
from layerlock.learn.plans import Plateau

PLATEAU = Plateau(target="frozen", last=3, lines=4, patience=2, threshold=0.01, shortest=0.1, longest=0.4)


def switches(settings: Plateau, loss: Callable[[int, int], float], every: int = 1) -> list[tuple[int, int, str]]:
    """(step, frozen blocks, reason) in a run of 100 steps whose loss is a function of the step and what is frozen."""
    plan, lines = settings.build(100, 8, 10), list[dict[str, float]]()
    for step in range(every, 101, every):  # a loss depends on what was decided before
        log = followed(plan, step, lines)
        lines.append({"step": step, "loss": loss(step, log[-1].stage.frozen)})
    return [(switch.step, switch.stage.frozen, switch.reason) for switch in followed(plan, 100, lines)[1:]]


def test_a_loss_that_falls_keeps_its_stage_to_the_longest_and_one_that_does_not_ends_it() -> None:
    found = switches(PLATEAU, lambda step, frozen: 0.9**step if frozen == 0 else 1.0)
    assert [entry[:2] for entry in found] == [(40, 1), (50, 2), (60, 3)]
    assert found[0][2] == "it has lasted 40% of the run"
    how = "the loss changed by +0.00% from 4 log lines to the next 4; 3 lines in a row it fell by less than 1.00%"
    assert found[1][2] == how


@pytest.mark.parametrize(("patience", "step"), [(1, 29), (2, 30), (5, 33)])
def test_two_windows_are_compared_and_patience_counts_lines(patience: int, step: int) -> None:
    """Falling by 0.2 % a line four lines are 0.8 % below the four before, under 1 %; up to line 22 they fall by 2 %."""
    loss = lambda n, frozen: 0.98 ** min(n, 22) * 0.998 ** max(n - 22, 0)  # noqa: E731
    found = switches(replace(PLATEAU, patience=patience, last=1), loss)
    assert [entry[:2] for entry in found] == [(step, 1)]
    assert "changed by -0.80% from 4 log lines" in found[0][2]


def test_lines_of_another_stage_and_one_good_line_count_for_nothing() -> None:
    jumps = switches(replace(PLATEAU, shortest=0.0), lambda step, frozen: 1.0 + 10 * frozen)
    assert [entry[0] for entry in jumps] == [9, 18, 27], "eight lines of its own, and one more for patience"
    broken = switches(replace(PLATEAU, lines=1, patience=3, last=1), lambda step, frozen: 0.5 ** (step // 3))
    assert [entry[0] for entry in broken] == [40]


def test_a_loss_that_rises_no_longer_falls_and_few_lines_wait_for_the_longest() -> None:
    rising = switches(replace(PLATEAU, last=1), lambda step, frozen: 1.0 + step)
    assert rising[0][0] == 10
    assert "the loss changed by +" in rising[0][2]
    few = switches(replace(PLATEAU, last=1), lambda step, frozen: 1.0, every=7)
    assert few == [(42, 1, "it has lasted 40% of the run")], "at the first line after it"


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, [0, 1, 2, 3]),
        ({"jump": 2}, [0, 1, 3]),
        ({"first": 2, "jump": 2}, [0, 2, 3]),
        ({"first": 5}, [0, 3]),
        ({"last": 1_000, "jump": 3}, [0, 1, 4, 7, 8]),
        ({"last": 1_000, "first": 8, "freeze_decoder": True}, [0, 8, 9, 10]),
    ],
)
def test_as_many_blocks_freeze_as_are_asked_for_and_there(changes: dict[str, int], frozen: list[int]) -> None:
    plan = replace(PLATEAU, **changes).build(100, 8, 10)
    assert [stage.frozen for stage in plan.stages] == frozen
    assert [stage.targets for stage in plan.stages] == ["pixels", *(f"h{count}" for count in frozen[1:])]
    assert observes(plan)
    assert timeline(plan, 100) == [(0, plan.stages[0])], "nothing else is foretold"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lines": 0}, "plan.lines: 0 is not positive"),
        ({"patience": -1}, "plan.patience: -1"),
        ({"threshold": 0.0}, "plan.threshold: 0.0"),
        ({"jump": 0}, "plan.jump: 0"),
        ({"frozen": -1}, "plan.frozen: -1 is negative"),
        ({"shortest": 0.5}, "plan.shortest: 0.5, plan.longest: 0.4"),
        ({"longest": 1.5}, "plan.longest: 1.5"),
        ({"target": "pixels", "keep_targets": True}, "only used with --plan.target frozen"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, object], word: str) -> None:
    (found,) = replace(PLATEAU, **changes).problems()  # type: ignore[arg-type]
    assert word in found


def test_blocks_that_are_frozen_from_the_start_and_a_patch_loss_that_is_kept_go_with_it() -> None:
    settings = replace(PLATEAU, frozen="half", first=5, last=6, patch_weight=0.25)
    plan = settings.build(100, 8, 10)
    assert [(stage.frozen, stage.targets) for stage in plan.stages] == [
        (4, "pixels+h4"),
        (5, "pixels+h5"),
        (6, "pixels+h6"),
    ]
    assert plan.weights(0, ()) == {"pixels": 0.25}
    assert replace(PLATEAU, keep_targets=True).build(100, 8, 10).weights(0, ()) == {}
    with pytest.raises(ValueError, match=r"plan\.frozen: 4 blocks are frozen from the start, 1 at the first switch"):
        replace(settings, first=1).build(100, 8, 10)
