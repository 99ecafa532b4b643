"""One config: all its problems at once, to JSON and back."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import MODEL, config

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data import ClipConfig
from layerlock.errors import ConfigError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import FutureMasking, MultiBlockMasking, RandomMasking, SeveralMaskings, TubeMasking
from layerlock.learn.plan import FixedPlan, Stage, Tap
from layerlock.learn.plans import Blockwise, Distill, Plans, Plateau, Progressive
from layerlock.learn.targets import PatchTarget
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import ViTConfig
from layerlock.recipes import RECIPES
from layerlock.settings import from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_sound_and_survives_json(name: str) -> None:
    made = RECIPES[name].config
    made.check()
    assert from_dict(Config, json.loads(json.dumps(to_dict(made)))) == made


def test_all_problems_come_in_one_message() -> None:
    made = Config(
        steps=0,
        clip=ClipConfig(frames=15, resize=0.5),
        model=ViTConfig(width=100, heads=3),
        optim=OptimConfig(lr=-1.0, clip_norm=0.0, accumulate=0, betas=(0.9, 1.0)),
        run=RunConfig(workers=-1, keep=0),
        plan=Progressive(start=-1.0),
        decoder=BackboneDecoding(blocks=12),
    )
    with pytest.raises(ConfigError) as error:
        made.check()
    fields = ["steps", "clip.resize", "model.heads", "optim.lr", "optim.clip_norm", "optim.accumulate", "optim.betas"]
    fields += ["run.workers", "run.keep", "plan.start", "decoder.blocks", "model.patch"]
    text = str(error.value)
    assert all(field in text for field in fields)
    assert f"{len(error.value.problems)} problems" in text
    assert len(error.value.problems) == len(fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": ClipConfig(frames=1_000_000, size=48)}, "clip.frames, clip.size: a clip of 1,000,000 frames"),
        ({"clip": ClipConfig(size=1_000_000)}, "clip.frames, clip.size: a clip of 16 frames"),
        ({"clip": ClipConfig(frames=600_000, size=16)}, "clip.frames, clip.size, model.patch: 300,000 tokens"),
        ({"model": ViTConfig(depth=1_000_000)}, "model.depth, model.width, model.mlp: 7,"),
        ({"model": ViTConfig(mlp=1_000_000_000_000)}, "model.depth, model.width, model.mlp: 18,"),
        ({"decoder": SeparateDecoding(depth=10**9)}, "decoder.depth, decoder.width, decoder.mlp: 1,"),
        ({"optim": OptimConfig(cycles=100_000_000)}, "optim.cycles: 100000000 do not fit in 1000 steps"),
    ],
)
def test_what_is_too_large_for_any_machine_is_said_at_once(changes: dict[str, Any], words: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as error:
        replace(Config(), **changes).check()
    assert any(problem.startswith(words) for problem in error.value.problems)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": ClipConfig(size=225)}, "does not divide 225 height"),
        ({"model": ViTConfig(patch=(3, 16, 16))}, "does not divide 16 frames"),
        ({"model": ViTConfig(patch=(0, 16, 16))}, "patch"),
        ({"masking": RandomMasking(keep=0.0001)}, "masking.keep"),
        (
            {"masking": RandomMasking(keep=0.9, predict=0.001)},
            "masking.predict: 0.001 of 157 masked tokens leaves 0 to predict",
        ),
        ({"masking": RandomMasking(predict=0.0)}, "masking.predict: 0.0 of 1490 masked tokens"),
        ({"masking": RandomMasking(predict=1.5)}, "masking.predict: 1.5 of 1490 masked tokens"),
        ({"masking": TubeMasking(predict=0.001)}, "masking.predict: 0.001 of 176 masked tokens leaves 0 to predict"),
        ({"masking": FutureMasking(predict=0.0)}, "masking.predict: 0.0 must be above 0"),
        ({"plan": Progressive(masked=True)}, "losses at masked positions need masking.predict"),
        ({"masking": MultiBlockMasking(blocks=0)}, "masking.blocks"),
        ({"masking": MultiBlockMasking(group=0)}, "masking.group"),
        ({"masking": MultiBlockMasking(group=5_000)}, "masking.group"),
        ({"batch": 6, "optim": OptimConfig(accumulate=4)}, "does not divide a batch of 6"),
        ({"optim": OptimConfig(warmup=5.0)}, "optim.warmup"),
        ({"optim": OptimConfig(warmup=0.3, cycles=4)}, "optim.warmup: 0.3 of the run does not fit in one of 4 cycles"),
        ({"optim": OptimConfig(cycles=0)}, "optim.cycles: 0 is not positive"),
        ({"run": RunConfig(keep_at=(0,))}, "run.keep_at: 0 is not positive"),
        ({"run": RunConfig(keep_at=(8, 9)), "steps": 8}, "run.keep_at: 9 is after the last of 8 steps"),
        ({"optim": OptimConfig(cycles=9), "steps": 8}, "optim.cycles: 9 do not fit in 8 steps"),
        ({"optim": OptimConfig(weight_decay=math.nan)}, "optim.weight_decay: nan is not finite"),
        ({"optim": OptimConfig(betas=(0.9, math.inf))}, r"optim.betas: \(0.9, inf\) is not finite"),
        (
            {"optim": OptimConfig(cycles=4), "plan": Progressive(start=0.5, interval=0.2)},
            "optim.cycles: 4 equal cycles",
        ),
        ({"plan": Progressive(start=0.5, last=0)}, "plan.last must be positive"),
        ({"plan": Progressive(start=0.5, first=9, last=12)}, "freeze_decoder"),
        ({"plan": Progressive(start=0.5, interval=0.1), "steps": 3}, "too few"),
        ({"model": ViTConfig(position="ropes")}, "position"),  # type: ignore[arg-type]
        ({"run": RunConfig(precision="fp16")}, "precision"),  # type: ignore[arg-type]
        ({"run": RunConfig(compile="maybe")}, "compile"),  # type: ignore[arg-type]
        ({"plan": Progressive(target="latent", start=0.5)}, "target"),  # type: ignore[arg-type]
        ({"decoder": BackboneDecoding(tokens="mask")}, "tokens"),  # type: ignore[arg-type]
    ],
)
def test_a_setting_that_cannot_be_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config(**changes).check()


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (Progressive(patches="motion"), "plan.patches"),
        (Progressive(motion_weight=0.5), "plan.motion_weight"),
        (Plateau(motion_weight=0.5, patches="motion"), "plan.patches and plan.motion_weight"),
        (Distill(network="teacher/", patches="motion"), "plan.patches"),
    ],
)
def test_changes_over_time_need_patches_of_several_frames(plan: Plans, field: str) -> None:
    config = Config(plan=plan)
    config.check()
    with pytest.raises(ConfigError) as error:
        replace(config, model=ViTConfig(patch=(1, 16, 16))).check()
    words = f"step 0: {field}: changes over time need patches of several frames; model.patch is (1, 16, 16)"
    assert error.value.problems == (words,)
    own = FixedPlan(((0, Stage(frozen=0, last=12, taps=(Tap(depth=8, target=PatchTarget("motion")),))),))
    with pytest.raises(ConfigError, match=r"stage\.taps: changes over time"):
        Config(model=ViTConfig(patch=(1, 16, 16))).check(own)


def test_one_block_is_enough_for_a_decoder_beside_it() -> None:
    plan = Config(model=ViTConfig(depth=1), decoder=SeparateDecoding()).check()
    assert plan.stage(0, ()).last == 1


def test_cycles_go_with_sequential_parts_of_one_length() -> None:
    fits = Config(
        decoder=SeparateDecoding(),
        masking=TubeMasking(),
        plan=Blockwise(regime="sequential", parts=4),
        optim=OptimConfig(cycles=4),
    )
    fits.check()
    for plan in (replace(fits.plan, parts=6), replace(fits.plan, times=(0.25, 0.5, 0.8))):
        with pytest.raises(ConfigError, match=r"optim\.cycles: 4 equal cycles must begin where stages begin"):
            replace(fits, plan=plan).check()


def test_freezing_into_the_decoder_is_allowed_when_asked_for() -> None:
    plan = Progressive(start=0.5, first=9, last=12, freeze_decoder=True)
    Config(plan=plan).check()


def test_problems_of_a_stage_name_its_step() -> None:
    plan = Progressive(freezes=((0.5, 5), (0.75, 9)))
    with pytest.raises(ConfigError, match=r"step 750: stage\.frozen: 9 frozen blocks"):
        Config(plan=plan, steps=1_000).check()


def test_unknown_fields_are_all_named_with_their_place() -> None:
    values = to_dict(Config()) | {"stepz": 3}
    values["optim"] |= {"learning_rate": 1.0}
    values["model"]["depths"] = 4
    with pytest.raises(ConfigError) as error:
        from_dict(Config, values)
    assert {line.split(":")[0] for line in error.value.problems} == {"stepz", "optim.learning_rate", "model.depths"}


def test_missing_fields_take_their_defaults_and_lists_become_tuples() -> None:
    made = from_dict(Config, {"plan": {"freezes": [[0.5, 2], [0.75, 3]]}, "model": {"patch": [1, 8, 8]}})
    assert made.plan.freezes == ((0.5, 2), (0.75, 3))
    assert made.model.patch == (1, 8, 8)
    assert made.steps == Config().steps


def test_masks_of_several_go_to_json_and_back_and_are_checked_one_by_one() -> None:
    masking = SeveralMaskings(masks=(MultiBlockMasking(blocks=3), MultiBlockMasking(group=5)))
    values = json.loads(json.dumps(to_dict(Config(masking=masking))))
    assert from_dict(Config, values).masking == masking
    values["masking"]["masks"][1]["grop"] = 5
    with pytest.raises(ConfigError, match=r"masking\.masks\[1\]\.grop: no such field"):
        from_dict(Config, values)
    wrong = SeveralMaskings(masks=(MultiBlockMasking(), MultiBlockMasking(blocks="8")))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"masking\.masks\[1\]\.blocks: '8' is not int"):
        Config(masking=wrong).check()


def test_derived_numbers_follow_the_fields(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert (made.grid, made.tokens, made.encoder_depth) == ((4, 3, 3), 36, 4)
    assert replace(made, model=replace(MODEL, patch=(4, 8, 8))).tokens == 18
    assert Config().tokens == 1568
    assert Config().context_tokens == 78
