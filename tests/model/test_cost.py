"""Cost from shapes against torch's own counter, and parameters against the paper's."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny import GRID, MODEL, TOKENS
from torch.utils.flop_counter import FlopCounterMode

from layerlock.config import Config
from layerlock.learn.learner import Learner
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plan import FixedPlan
from layerlock.learn.plans import JointEmbedding, Progressive
from layerlock.learn.targets import FeatureTarget
from layerlock.model.cost import Numerics, backbone_parameters, block_flops, dense_flops, encoder_flops
from layerlock.model.sizes import SIZES, vit
from layerlock.model.vit import Position, ViT
from layerlock.recipes import recipe


def stages(config: Config) -> FixedPlan:
    plan = config.build_plan()
    assert isinstance(plan, FixedPlan)
    return plan


def assert_counted(config: Config, picked: list[int] | None = None, batch: int = 1, rel: float = 0.01) -> None:
    """The formula is within `rel` of the counter in each (or each picked) stage; live parameters are exact."""
    clip, every = config.clip, [stage for _, stage in stages(config).timeline]
    with torch.device("meta"):
        learner = Learner(config.model, config.grid, config.masking, config.decoder, every[0])
        video = torch.empty(batch, clip.frames, 3, clip.size, clip.size, dtype=torch.uint8)
        index = torch.empty(batch, dtype=torch.int64)
        for number in picked or range(len(every)):
            stage = every[number]
            learner.enter(stage)
            with FlopCounterMode(display=False) as counter:
                learner.step(video, index)
            learner.zero_grad()
            wanted = counter.get_total_flops() / batch
            assert config.cost(stage).total == pytest.approx(wanted, rel=rel), f"stage {number}"
            assert config.memory(stage, Numerics(compute=4)).live == sum(p.numel() for p in learner.live().values())


@pytest.mark.parametrize(("size", "millions"), [("B", 87), ("L", 305), ("H", 633), ("G", 1848), ("e", 3811)])
def test_sizes_have_the_papers_parameters(size: str, millions: int) -> None:
    assert backbone_parameters(vit(size)) / 1e6 == pytest.approx(millions, rel=0.01)
    with torch.device("meta"):
        assert sum(p.numel() for p in ViT(vit(size), (8, 14, 14)).parameters()) == backbone_parameters(vit(size))


@pytest.mark.parametrize("position", get_args(Position))
def test_parameters_are_counted_for_every_way_to_tell_position(position: Position) -> None:
    config = replace(MODEL, position=position)
    counted = sum(p.numel() for p in ViT(config, GRID).parameters())
    assert backbone_parameters(config, TOKENS) == counted


def test_sizes_are_those_of_the_papers() -> None:
    wanted = {"S": (384, 12, 1536, 6), "S16": (384, 16, 1536, 6), "B": (768, 12, 3072, 12), "L": (1024, 24, 4096, 16)}
    wanted |= {"H": (1280, 32, 5120, 16), "G": (1664, 48, 8192, 16), "e": (1792, 56, 15360, 16)}
    assert {name: SIZES[name] for name in wanted} == wanted


def test_a_block_is_its_matrix_products() -> None:
    d, n, m = 24, 10, 48
    q, k, v, out = (2 * n * d * d for _ in range(4))
    scores = mix = 2 * n * n * d
    assert block_flops(MODEL, n) == q + k + v + out + scores + mix + 2 * (2 * n * d * m)
    assert dense_flops(3, 5, 7) == 210
    assert encoder_flops(MODEL, n, 2) == 2 * n * MODEL.patch_values * d + 2 * block_flops(MODEL, n)


@pytest.mark.parametrize("name", ["mae", "freeze", "layerlock", "layerlock-sparse", "layerlock-multi", "live-latents"])
def test_flops_of_every_tiny_stage_are_the_counters(name: str) -> None:
    assert_counted(recipe(f"{name}-tiny"))


@pytest.mark.parametrize("name", ["mae", "freeze", "layerlock"])
def test_flops_of_every_small_stage_are_the_counters(name: str) -> None:
    assert_counted(recipe(f"{name}-small"))


@pytest.mark.parametrize("position", ["rope-attention", "sincos", "learned", "none"])
def test_flops_are_the_counters_for_every_way_to_tell_position(position: Position) -> None:
    config = recipe("layerlock-sparse-tiny")
    assert_counted(replace(config, model=replace(config.model, position=position)))


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_fraction": 0.25, "full_clip": True},
        {"latent_fraction": 0.25, "keep_targets": True},
        {"freezes": ((0.3, 4), (0.5, 8), (0.7, 9), (0.9, 10)), "freeze_decoder": True},
        {"target": "pixels", "freezes": ((0.3, 9), (0.9, 10)), "freeze_decoder": True},
    ],
    ids=["full clip", "sparse multi", "latent decoder", "pixel decoder"],
)
def test_flops_are_the_counters_for_other_plans(changes: dict[str, object]) -> None:
    config = recipe("layerlock-tiny")
    assert_counted(replace(config, plan=replace(config.plan, **changes)))


@pytest.mark.parametrize(
    ("size", "fraction", "picked"),
    [("B", 1.0, [0, 1, 4]), ("B", 0.05, [4]), ("L", 1.0, [0, 3]), ("L", 0.05, [2]), ("H", 1.0, [4]), ("H", 0.05, [4])],
)
def test_flops_of_the_papers_clips_are_the_counters(size: str, fraction: float, picked: list[int]) -> None:
    config = recipe("4ds-g-layerlock")
    plan = Progressive(target="frozen", start=0.2, interval=0.2, first=2, jump=2, last=8, latent_fraction=fraction)
    assert_counted(replace(config, model=vit(size), plan=plan), picked)


@pytest.mark.parametrize("input_norm", [False, True])
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("name", ["vjepa-layerlock-tiny", "blockwise-tiny", "blockwise-sequential-tiny"])
def test_flops_of_separate_decoders_are_the_counters(name: str, final_norm: bool, input_norm: bool) -> None:
    config = recipe(name)
    plan = replace(config.plan, last=10, jump=4) if isinstance(config.plan, JointEmbedding) else config.plan
    config = replace(
        config,
        plan=plan,
        masking=TubeMasking(keep=0.25),
        model=replace(config.model, final_norm=final_norm),
        decoder=replace(config.decoder, depth=1, input_norm=input_norm),
    )
    assert_counted(config, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "picked"),
    [
        ("4ds-g-layerlock", [0, 16, 32]),
        ("4ds-g-layerlock-sparse", [32]),
        ("vit-g-250m-freeze", [4]),
        ("4ds-e-layerlock", [0, 15, 29]),
    ],
)
def test_flops_of_the_papers_models_are_the_counters(name: str, picked: list[int]) -> None:
    assert_counted(recipe(name), picked)


def test_late_stages_cost_what_counting_says() -> None:
    config = recipe("4ds-g-layerlock")
    timeline = stages(config).timeline
    pixels, early, late = (config.cost(timeline[i][1]).total for i in (0, 5, 32))
    assert early / pixels == pytest.approx(1.25, abs=0.03)
    assert late / pixels == pytest.approx(2.6, abs=0.06)
    sparse = recipe("4ds-g-layerlock-sparse")
    assert sparse.cost(stages(sparse).timeline[32][1]).total / pixels == pytest.approx(0.3, abs=0.05)


def test_freezing_with_pixels_at_a_billion_clips_saves_what_counting_says() -> None:
    config = recipe("4ds-g-layerlock")
    config = replace(config, plan=replace(config.plan, target="pixels"))
    timeline = stages(config).timeline
    ends = [begin for begin, _ in timeline[1:]] + [config.steps]
    spent = sum(config.cost(stage).total * (end - begin) for (begin, stage), end in zip(timeline, ends, strict=True))
    full = config.cost(timeline[0][1]).total * config.steps
    assert 1 - spent / full == pytest.approx(0.055, abs=0.005)


def test_a_live_layer_beside_the_teachers_costs_a_pass_of_its_own() -> None:
    made = recipe("vjepa-tiny")
    stage = made.build_plan().stage(0, ())
    tap = stage.taps[0]
    live = replace(tap, target=FeatureTarget((3,), live=True, normalized=True))
    through = replace(tap, target=FeatureTarget((3,), live=True, normalized=True, gradient=True))
    alone = made.cost(stage).target
    beside, trained = (made.cost(replace(stage, taps=(tap, other))).target for other in (live, through))
    once = encoder_flops(made.model, made.tokens, 3)
    assert beside == alone + once
    assert trained == alone + 3 * once - dense_flops(made.tokens, made.model.patch_values, made.model.width)
