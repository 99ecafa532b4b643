"""Plans: the papers' schedules, their invariants, what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlock.learn.plan import FixedPlan, Stage, Switch, SwitchLog, Tap, timeline
from layerlock.learn.plans import Distill, JointEmbedding, Progressive
from layerlock.learn.targets import FeatureTarget, PatchTarget
from layerlock.recipes import RECIPES, recipe

FREEZING = [name for name in RECIPES if len(timeline(recipe(name).build_plan(), recipe(name).steps)) > 1]


def schedule(name: str) -> list[tuple[int, int]]:
    """(step, frozen blocks) of every switch of a recipe."""
    config = recipe(name)
    return [(begin, stage.frozen) for begin, stage in timeline(config.build_plan(), config.steps)]


def test_table_8_freezes_4ds_g_from_160k_one_block_each_10k_up_to_32() -> None:
    assert schedule("4ds-g-layerlock") == [(0, 0), *((160_000 + 10_000 * i, i + 1) for i in range(32))]


def test_table_8_freezes_4ds_e_from_200k_and_ends_at_29() -> None:
    assert schedule("4ds-e-layerlock") == [(0, 0), *((200_000 + 10_000 * i, i + 1) for i in range(29))]


def test_table_10_freezes_vit_g_four_at_a_time_after_five() -> None:
    assert schedule("vit-g-250m-freeze") == [(0, 0), (25_000, 5), (45_000, 9), (65_000, 13), (85_000, 17)]


@pytest.mark.parametrize("name", FREEZING)
def test_every_stage_of_every_recipe_occurs_in_300_steps(name: str) -> None:
    config = recipe(name)
    short = replace(config, steps=300)
    long, found = (timeline(c.check(), c.steps) for c in (config, short))
    assert [stage for _, stage in found] == [stage for _, stage in long]
    ends = [begin for begin, _ in found[1:]] + [300]
    assert all(end > begin for (begin, _), end in zip(found, ends, strict=True))


@pytest.mark.parametrize("name", [name for name in FREEZING if name.endswith("tiny")])
def test_tiny_recipes_switch_at_least_four_times(name: str) -> None:
    assert len(schedule(name)) >= 5


def test_too_few_steps_for_the_stages_is_an_error() -> None:
    plan = Progressive(start=0.6, interval=0.1, last=4)
    assert [begin for begin, _ in plan.build(10, 8, 10).timeline] == [0, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="3 are too few for 5 stages"):
        plan.build(3, 8, 10)


@pytest.mark.parametrize(
    ("start", "interval", "frozen"), [(0.1, 0.15, 6), (0.1, 0.1, 9), (1 / 7, 1 / 7, 6), (0.4, 0.2, 3), (0.3, 0.7, 1)]
)
def test_a_switch_at_the_end_does_not_come_whatever_its_time_is_rounded_to(
    start: float, interval: float, frozen: int
) -> None:
    plan = Progressive(start=start, interval=interval).build(1_000, 12, 14)
    assert [stage.frozen for _, stage in plan.timeline] == list(range(frozen + 1))
    assert plan.timeline[1][0] == round(start * 1_000)


def test_only_losses_on_patches_are_weighted_by_motion() -> None:
    plan = Progressive(start=0.5, last=1, target="frozen", patch_weight=0.3, motion_weight=0.6)
    assert plan.problems() == []
    weights = [[tap.motion_weight for tap in stage.taps] for _, stage in plan.build(100, 8, 10).timeline]
    assert weights == [[0.6], [0.6, 0.0]]
    assert replace(plan, motion_weight=-0.1).problems() == ["plan.motion_weight: -0.1 must be from 0 to 1"]
    without = replace(plan, frozen=2, first=3, last=3, patch_weight=0.0)
    assert without.problems() == [
        "plan.motion_weight: there is no loss on patches with plan.frozen and --plan.target frozen"
    ]
    assert replace(without, keep_targets=True).problems() == []


def test_freezes_can_be_listed() -> None:
    plan = Progressive(freezes=((0.25, 2), (0.5, 3), (0.9, 6))).build(100, 8, 10)
    assert [(begin, stage.frozen) for begin, stage in plan.timeline] == [(0, 0), (25, 2), (50, 3), (90, 6)]


@pytest.mark.parametrize(
    "changes",
    [
        {"freezes": ((0.5, 2), (0.25, 3))},
        {"freezes": ((0.25, 3), (0.5, 2))},
        {"freezes": ((0.25, 2), (0.5, 2))},
        {"freezes": ((0.0, 2),)},
        {"freezes": ((0.5, 0),)},
        {"start": 0.0},
        {"start": 0.5, "interval": 0.0},
        {"start": 0.5, "jump": 0},
        {"start": 0.5, "first": 0},
    ],
)
def test_schedules_that_do_not_rise_are_problems(changes: dict[str, object]) -> None:
    assert Progressive(**changes).problems()  # type: ignore[arg-type]


def test_one_target_is_the_last_frozen_block_and_kept_targets_are_all_so_far() -> None:
    one = Progressive(target="frozen", start=0.4, interval=0.2, first=2, jump=3, last=8)
    assert [stage.targets for _, stage in one.build(100, 8, 10).timeline] == ["pixels", "h2", "h5", "h8"]
    many = replace(one, keep_targets=True, latent_fraction=0.05)
    assert [stage.targets for _, stage in many.build(100, 8, 10).timeline] == [
        "pixels",
        "pixels+h2",
        "pixels+h2+h5",
        "pixels+h2+h5+h8",
    ]
    taps = many.build(100, 8, 10).timeline[-1][1].taps
    assert [tap.fraction for tap in taps] == [1.0, 0.05, 0.05, 0.05]
    assert all(tap.depth == 8 for tap in taps)


@given(
    plan=st.builds(
        Progressive,
        start=st.floats(0.01, 0.95),
        interval=st.floats(0.02, 0.5),
        first=st.integers(1, 5),
        jump=st.integers(1, 4),
        last=st.integers(1, 9),
        target=st.sampled_from(["pixels", "frozen"]),
        keep_targets=st.booleans(),
    ),
    steps=st.integers(1, 400),
)
def test_built_plans_keep_their_promises(plan: Progressive, steps: int) -> None:
    plan = replace(plan, keep_targets=plan.keep_targets and plan.target == "frozen")
    assert not plan.problems()
    try:
        built = plan.build(steps, 9, 12)
    except ValueError:
        shortest = min(plan.interval, 1 - plan.schedule()[-1][0])
        assert steps * shortest < 2, "there was room"
        return
    begins = [begin for begin, _ in built.timeline]
    frozen = [stage.frozen for _, stage in built.timeline]
    assert begins[0] == 0
    assert begins == sorted(set(begins))
    assert begins[-1] < steps
    assert frozen == sorted(frozen)
    assert max(frozen) <= plan.last
    for _, stage in built.timeline:
        assert not stage.problems(12, 9, freeze_decoder=False)
        assert max(stage.blocks_of("model"), default=0) <= stage.frozen
        assert len(set(stage.taps)) == len(stage.taps)
    for step in range(steps):
        number = sum(begin <= step for begin in begins) - 1
        assert built.stage(step) == built.timeline[number][1]


TAP = Tap(depth=8)


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        (Stage(frozen=9, last=10, taps=(TAP,)), "freeze_decoder"),
        (Stage(frozen=-1, last=10, taps=(TAP,)), "-1 frozen"),
        (Stage(frozen=0, last=10, taps=()), "without a loss"),
        (Stage(frozen=2, last=10, taps=(Tap(depth=8, target=FeatureTarget((3,))),)), "live"),
        (Stage(frozen=2, last=10, taps=(Tap(depth=8, target=FeatureTarget((0,))),)), "from 1 on"),
        (Stage(frozen=2, last=10, taps=(Tap(depth=8, target=FeatureTarget((11,), live=True)),)), "h11 of 10"),
        (Stage(frozen=2, last=10, taps=(Tap(depth=8, target=FeatureTarget((2,)), fraction=0.0),)), "fraction"),
        (Stage(frozen=2, last=10, taps=(Tap(depth=8, target=FeatureTarget((2,)), fraction=1.5),)), "fraction"),
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, fraction=0.5),)), "the loss on pixels is on all"),
        (
            Stage(
                frozen=2,
                last=10,
                taps=tuple(Tap(depth=8, target=FeatureTarget((k,)), fraction=k / 4) for k in (1, 2)),
            ),
            "share one subset",
        ),
        (Stage(frozen=0, last=10, taps=(Tap(depth=11),)), "depth"),
    ],
)
def test_stages_that_cannot_be_are_refused_in_words(stage: Stage, word: str) -> None:
    found = stage.problems(10, 8, freeze_decoder=False)
    assert len(found) == 1
    assert word in found[0]


def test_freezing_into_the_decoder_and_live_targets_are_allowed_when_named() -> None:
    assert not Stage(frozen=10, last=10, taps=(TAP,)).problems(10, 8, freeze_decoder=True)
    live = Stage(frozen=2, last=10, taps=(TAP, Tap(depth=8, target=FeatureTarget((5,), live=True))))
    assert not live.problems(10, 8, freeze_decoder=False)


@dataclass(frozen=True)
class Reader:
    """A plan that moves on three steps after its last switch: it reads the log."""

    def stage(self, step: int, log: SwitchLog) -> Stage:
        since = step - (log[-1].step if log else 0)
        frozen = len(log) + (since >= 3)
        return Stage(frozen=frozen, last=10, taps=(TAP,))


def test_a_timeline_keeps_the_log_that_a_plan_reads() -> None:
    assert [(begin, stage.frozen) for begin, stage in timeline(Reader(), 10)] == [(0, 0), (3, 1), (6, 2), (9, 3)]


def test_a_fixed_plan_does_not_read_the_log() -> None:
    stages = tuple((10 * k, Stage(frozen=k, last=10, taps=(TAP,))) for k in range(3))
    plan = FixedPlan(stages)
    assert [plan.stage(step, (Switch(step, stages[1][1]),)).frozen for step in (0, 9, 10, 19, 20, 10**6)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert timeline(plan, 15) == list(stages[:2])


@pytest.mark.parametrize(
    ("taps", "word"),
    [
        ((Tap(depth=4, target=FeatureTarget((1,), gradient=True)),), "live targets alone"),
        (
            (Tap(depth=2, detach=True), Tap(depth=4, target=FeatureTarget((1,), live=True, gradient=True))),
            "no loss detaches",
        ),
    ],
)
def test_gradients_into_targets_that_cannot_be_are_refused(taps: tuple[Tap, ...], word: str) -> None:
    found = Stage(frozen=1 if len(taps) == 1 else 0, last=6, taps=taps).problems(6, 4, False)
    assert len(found) == 1
    assert word in found[0]


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, target=FeatureTarget((3, 2), "teacher")),)), "rising"),
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, target=PatchTarget("ema")),)), "'ema' is none of pixels"),  # type: ignore[arg-type]
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, target=FeatureTarget((11,), "teacher")),)), "predicts t11 of 10"),
        (Stage(frozen=0, last=3, taps=(Tap(depth=8),)), "depth 8, above block 3, the last that learns"),
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, error="huber"),)), "'huber' is none of squared, absolute, smooth"),  # type: ignore[arg-type]
        (Stage(frozen=0, last=10, taps=(Tap(depth=8, motion_weight=1.5),)), "motion_weight: 1.5 must be from 0 to 1"),
        (
            Stage(frozen=0, last=10, taps=(Tap(depth=8, target=FeatureTarget((1,), "teacher"), motion_weight=0.5),)),
            "motion_weight: only for a loss on patches, not on t1",
        ),
    ],
)
def test_a_problem_of_a_loss_names_its_field(stage: Stage, word: str) -> None:
    (found,) = stage.problems(10, 8, freeze_decoder=False)
    assert found.startswith("stage.taps[0].")
    assert word in found


@pytest.mark.parametrize("begins", [(), (1,), (0, 5, 5), (0, 5, 3)])
def test_fixed_stages_begin_at_steps_that_rise_from_0(begins: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not rise from 0"):
        FixedPlan(tuple((begin, Stage(frozen=0, last=10, taps=(TAP,))) for begin in begins))


def test_the_timeline_of_a_plan_with_stages_of_its_own_is_that_of_its_stages() -> None:
    class Late(FixedPlan):
        def stage(self, step: int, log: SwitchLog = ()) -> Stage:
            return super().stage(step - 2, log) if step > 1 else self.timeline[0][1]

    stages = tuple((10 * k, Stage(frozen=k, last=10, taps=(TAP,))) for k in range(2))
    assert [begin for begin, _ in timeline(Late(stages), 20)] == [0, 12]


def test_a_distillation_predicts_a_network_throughout_or_until_blocks_freeze() -> None:
    plan = Distill(network="runs/x", blocks=(2, 4), masked=True, start=0.4, interval=0.3, first=2, jump=2, last=4)
    assert not plan.problems()
    assert [(s.frozen, s.targets) for _, s in plan.build(100, 8, 8).timeline] == [(0, "e2_4"), (2, "e2_4"), (4, "e2_4")]
    lock = replace(plan, target="frozen", blocks=(), patches="normalized")
    assert [s.targets for _, s in lock.build(100, 8, 8).timeline] == ["pixels+e_last", "pixels+h2", "pixels+h4"]
    for _, stage in lock.build(100, 8, 8).timeline:
        assert not stage.problems(8, 8, freeze_decoder=False)
        assert all(tap.masked for tap in stage.taps)
        assert [tap.error for tap in stage.taps] == ["squared", "smooth"]


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (Distill(), "plan.network: ''"),
        (Distill(network="teacher"), "plan.network: 'teacher'"),
        (Distill(network="runs/x", blocks=(3, 2)), r"plan.blocks: \(3, 2\)"),
        (Distill(network="runs/x", target="frozen"), "plan.target: no block is ever frozen"),
    ],
)
def test_distillations_that_cannot_be_name_their_field(plan: Distill, field: str) -> None:
    (problem,) = plan.problems()
    assert re.match(field, problem)


def test_blocks_can_be_frozen_from_the_start_and_are_predicted_at_once() -> None:
    plan = Progressive(target="frozen", frozen=3, start=0.5, interval=0.25, first=4, jump=2, last=6)
    found = [(s.frozen, s.targets) for _, s in plan.build(100, 8, 10).timeline]
    assert found == [(3, "h3"), (4, "h4"), (6, "h6")]
    kept = replace(plan, keep_targets=True, normalized=True)
    assert [s.targets for _, s in kept.build(100, 8, 10).timeline] == ["pixels+h3", "pixels+h3+h4", "pixels+h3+h4+h6"]
    half = Progressive(target="frozen", frozen="half")
    assert [(s.frozen, s.targets) for _, s in half.build(100, 9, 9).timeline] == [(4, "h4")]
    assert [(s.frozen, s.targets) for _, s in JointEmbedding(climb=True, frozen=3).build(9, 8, 8).timeline] == [
        (3, "t3")
    ]
    assert [(s.frozen, s.targets) for _, s in Distill(network="x", frozen=3).build(9, 8, 8).timeline] == [(3, "e_last")]


def test_blocks_frozen_from_the_start_that_cannot_be_are_problems() -> None:
    assert Progressive(frozen=-1).problems() == ["plan.frozen: -1 is negative"]
    assert Distill(network="x", frozen=2, start=0.5, first=3, target="frozen").problems()
    with pytest.raises(ValueError, match=r"plan\.frozen: 4 blocks are frozen from the start, 1 at the first switch"):
        Progressive(frozen="half", start=0.5).build(100, 8, 8)
    (stage,) = (stage for _, stage in Progressive(frozen=9).build(100, 8, 8).timeline)
    assert stage.problems(8, 8, freeze_decoder=False)
