"""Recipes: the papers' settings, typed a second time; what every recipe has; the page of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from paper_tables import ROWS
from printed import printed

import layerlock
from layerlock.api import describe_recipe
from layerlock.budget.devices import ASSUMED, DEVICES, Machine
from layerlock.budget.stages import MICRO_TRAFFIC, budget, foretold, total
from layerlock.config import Config, RunConfig
from layerlock.dry_run import show
from layerlock.encoders.published import PUBLISHED
from layerlock.encoders.videomae_weights import clip_grid, fields_of, vit_config
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.observed import UNKNOWN
from layerlock.learn.plan import timeline
from layerlock.model.cost import backbone_parameters, dense_parameters, encoder_flops
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.patches import token_grid
from layerlock.model.separate import SeparateDecoder, SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes import RECIPES, ROOMS, recipe
from layerlock.recipes.catalogue import markdown, row
from layerlock.train.schedule import learning_rate

ROOT = Path(__file__).parent.parent
OURS = [name for name, made in RECIPES.items() if not made.source]
UNPRINTED = {
    *("recipe", "data", "data_root", "out", "seed", "init_from", "clip.backend", "clip.per_decode", "optim.accumulate"),
    *("plan.freeze_decoder", *(f"run.{field.name}" for field in dataclasses.fields(RunConfig))),
} - {"run.precision"}
"""what no table prints and no learned number depends on; `freeze_decoder` only allows what `stages` would show"""
IN_PLACE_OF_NONE = {
    "masking.predict": 0.5,
    "masking.keep_to": 0.5,
    "optim.decay": 0.4,
    "clip.fps": 5.0,
    "clip.area": (0.3, 0.5),
    "optim.end_weight_decay": 0.3,
    "optim.end_teacher_decay": 0.5,
    "optim.clip_norm": 1.0,
}
IN_PLACE_OF = {
    "drawn": "solved",
    "frozen": "pixels",
    "pixels": "frozen",
    "cosine": "constant",
    "sequential": "simultaneous",
}
METHODS = [
    *("mae", "freeze", "layerlock", "layerlock-sparse", "layerlock-multi", "layerlock-plateau", "layerlock-auto"),
    *("live-latents", "videomae"),
    *("vjepa", "vjepa-layerlock", "vjepa-layerlock-own", "distill", "static-teacher"),
    *("blockwise", "blockwise-sequential", "deep-supervision", "end-to-end"),
]


@pytest.mark.parametrize("name", ROWS)
def test_a_papers_recipe_is_what_its_table_prints(name: str) -> None:
    wanted = {"stops": False, "both sides": False, "heads": "drawn", "falls over": None} | ROWS[name]
    found = printed(recipe(name))
    if wanted["mini warmup"] is None:
        assert len(found["stages"]) == 1, "no switch, so nothing for a mini warm-up to follow"
        found["mini warmup"] = None
    assert _rounded(found) == _rounded(wanted)


def _rounded(value: Any) -> Any:
    """Floats to nine digits, inside of anything: 1.5e-4 * 4 is not 6e-4 to the last bit."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def test_every_recipe_of_a_paper_is_in_the_table() -> None:
    assert set(ROWS) == set(RECIPES) - set(OURS)


NO_TEACHER, NO_AREA = {"optim.teacher_decay", "optim.end_teacher_decay"}, {"clip.aspect"}
NO_GROUP = {"masking.group"}
NO_SWITCH = {f"plan.{name}" for name in ("interval", "first", "jump", "last", "target", "keep_targets", "full_clip")}
NO_SWITCH |= {f"plan.{name}" for name in ("normalized", "patch_weight", "standardized", "average", "error")}


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("4ds-g-layerlock-sparse", NO_TEACHER | NO_AREA | NO_GROUP),
        ("vjepa-l-layerlock", NO_AREA),
        ("vit-h-100m-latent-cosine", NO_TEACHER | NO_AREA | NO_GROUP),
        ("blockwise-deit-tiny-sequential", NO_TEACHER | NO_AREA),
        ("videomae-s", NO_TEACHER | NO_SWITCH | {"plan.latent_fraction"}),
    ],
)
def test_no_field_can_change_without_the_table_noticing(name: str, without: set[str]) -> None:
    """`without` are the fields that have no effect in this recipe."""
    made = recipe(name)
    assert {where for where, changed in _changed(made) if _same(made, changed)} == without


def _same(made: Config, changed: Config) -> bool:
    try:
        return bool(_rounded(printed(changed)) == _rounded(printed(made)))
    except ValueError:
        return False  # no such plan


def _changed(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The config once for each of its fields, with that field changed."""
    for field in dataclasses.fields(config):
        name, value = f"{where}{field.name}", getattr(config, field.name)
        if name in UNPRINTED:
            continue
        if dataclasses.is_dataclass(value):
            yield from ((n, replace(config, **{field.name: v})) for n, v in _changed(value, f"{name}."))
        elif value != ():
            yield name, replace(config, **{field.name: _other(value, name)})


def _other(value: Any, name: str) -> Any:
    """Another value of the same type."""
    if value is None:
        return IN_PLACE_OF_NONE[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return IN_PLACE_OF.get(value, f"not {value}")
    if isinstance(value, tuple):
        return (_other(value[0], name), *value[1:])
    return value + 1 if isinstance(value, int) else value * 0.7 + 0.013


# --- what every recipe has -------------------------------------------------------------------------------------------


def test_names_are_given_once_and_every_recipe_says_what_it_is() -> None:
    everything = [made for room in ROOMS for made in room.RECIPES]
    assert len({made.name for made in everything}) == len(everything) == len(RECIPES)
    for made in everything:
        assert made.about
        assert "\n" not in made.line
        assert (made.name in ROWS) == bool(made.source) == bool(made.decided)


def test_every_method_is_there_at_every_size() -> None:
    assert {f"{method}-{size}" for method in METHODS for size in ("nano", "tiny", "small")} == set(OURS) - {
        "adapt",
        "adapt-tiny",
    }


@pytest.mark.parametrize(
    ("name", "reaches"),
    [
        ("4ds-g", "SSv2 63.1, Kinetics-700 52.1, ScanNet 0.102"),
        ("4ds-g-layerlock", "SSv2 66.1, Kinetics-700 56.3, ScanNet 0.100"),
        ("4ds-g-layerlock-sparse", "SSv2 64.9, ScanNet 0.112"),
        ("4ds-e", "SSv2 64.6, Kinetics-700 54.4, ScanNet 0.094"),
        ("4ds-e-layerlock", "SSv2 67.1, Kinetics-700 57.9, ScanNet 0.098"),
        ("vjepa-l", "SSv2 52.1, Kinetics-700 42.5, ScanNet 0.157"),
        ("vjepa-l-layerlock", "SSv2 57.0, Kinetics-700 43.5, ScanNet 0.151"),
        ("vit-h-100m", "SSv2 50.1, ScanNet 0.19"),
        ("vit-h-100m-latent-constant", "SSv2 3.7, ScanNet 0.38"),
        ("vit-h-100m-latent-cosine", "SSv2 5.6, ScanNet 0.37"),
        ("vit-g-250m-no-rope", "SSv2 56.1, ScanNet 0.15"),
        ("vit-g-250m", "SSv2 58.9, ScanNet 0.13"),
        ("vit-g-56m-layerlock", "SSv2 55.5, ScanNet 0.16"),
        ("vit-g-56m-layerlock-multi", "SSv2 55.4, ScanNet 0.16"),
        ("vit-g-250m-layerlock-warmup-none", "SSv2 58.7, ScanNet 0.14"),
        ("vit-g-250m-layerlock-warmup-3k", "SSv2 59.4, ScanNet 0.15"),
        ("vit-b-50m-layerlock", "SSv2 38.3, ScanNet 0.24"),
        ("vit-b-50m-layerlock-start-2k", "SSv2 36.0, ScanNet 0.25"),
        ("vit-b-50m-layerlock-start-4k", "SSv2 37.1, ScanNet 0.25"),
        ("vit-b-50m-layerlock-jump-3", "SSv2 36.0, ScanNet 0.25"),
        ("vit-b-50m-layerlock-jump-4", "SSv2 33.1, ScanNet 0.26"),
        ("vit-b-50m-layerlock-interval-2k", "SSv2 40.0, ScanNet 0.24"),
        ("vit-b-50m-layerlock-interval-8k", "SSv2 36.2, ScanNet 0.25"),
        ("vit-b-50m-layerlock-interval-16k", "SSv2 28.5, ScanNet 0.28"),
    ],
)
def test_figures_to_reach_are_those_of_the_tables(name: str, reaches: str) -> None:
    assert RECIPES[name].reaches == reaches


@pytest.mark.parametrize(("name", "encoder"), [("tiny", 6.5), ("small", 23.7)])
def test_blockwise_encoders_and_decoders_have_the_published_parameters(name: str, encoder: float) -> None:
    made = recipe(f"blockwise-deit-{name}")
    assert backbone_parameters(made.model) / 1e6 == pytest.approx(encoder, abs=0.05)
    assert isinstance(made.decoder, SeparateDecoding)
    with torch.device("meta"):
        parts = SeparateDecoder(made.decoder, made.model.width, made.grid)
    decoder = sum(p.numel() for p in parts.parameters())
    decoder += dense_parameters(made.decoder.width, made.model.patch_values)
    assert decoder / 1e6 == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("size", ["s", "b"])
def test_videomae_is_transformers_videomae(size: str) -> None:
    made = recipe(f"videomae-{size}")
    assert isinstance(made.decoder, SeparateDecoding)
    fields = fields_of(made.model, made.decoder, frames=made.clip.frames, size=made.clip.size)
    published = transformers.VideoMAEConfig(use_mean_pooling=False).to_dict()
    different = {name for name, value in fields.items() if published[name] != value}
    narrow = {"hidden_size", "intermediate_size", "num_attention_heads"}
    narrow |= {f"decoder_{name}" for name in narrow}
    assert different == (narrow if size == "s" else set())


@pytest.mark.parametrize(
    ("name", "last", "fraction"),
    [
        ("layerlock-tiny", "h4", 1.0),
        ("layerlock-small", "h7", 1.0),
        ("layerlock-sparse-small", "h7", 0.1),
        ("layerlock-multi-tiny", "pixels+h1+h2+h3+h4", 1.0),
        ("vjepa-layerlock-small", "t12", 1.0),
        ("blockwise-small", "pixels@4+pixels@7+pixels@11+pixels@14", 1.0),
        ("end-to-end-small", "pixels", 1.0),
    ],
)
def test_recipes_end_at_their_targets(name: str, last: str, fraction: float) -> None:
    made: Config = recipe(name)
    stage = timeline(made.build_plan(), made.steps)[-1][1]
    assert stage.targets == last
    assert stage.taps[-1].fraction == fraction


@pytest.mark.parametrize("name", [name for name in RECIPES if "sequential" in name])
def test_sequential_parts_each_begin_a_cycle_of_the_learning_rate(name: str) -> None:
    made = recipe(name)
    begins = [begin for begin, _ in timeline(made.build_plan(), made.steps)]
    warmup = round(made.optim.warmup * made.steps)
    for begin in begins[1:]:
        last, first, top = (
            learning_rate(made.optim, made.steps, step, ()) / made.optim.lr
            for step in (begin - 1, begin, begin + warmup - 1)
        )
        assert last < 1e-3
        assert first == pytest.approx(1 / warmup)
        assert top == pytest.approx(1)
    assert made.optim.cycles == len(begins)


def test_tiny_is_at_least_eight_encoder_and_two_decoder_blocks_on_16_frames() -> None:
    for name in (name for name in OURS if name.endswith("tiny")):
        made = recipe(name)
        assert made.encoder_depth >= 8
        assert (made.decoder.blocks if isinstance(made.decoder, BackboneDecoding) else made.decoder.depth) >= 2
        assert made.clip.frames == 16


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(LayerlockError, match=r"layerlok-tiny.*layerlock-tiny"):
        recipe("layerlok-tiny")


# --- what they cost, and the page of them ----------------------------------------------------------------------------


def test_a_budget_adds_up_the_stages() -> None:
    made = replace(recipe("layerlock-tiny"), steps=10)
    stages = budget(made)
    assert [(each.begin, each.end) for each in stages] == [(0, 6), (6, 7), (7, 8), (8, 9), (9, 10)]
    by_hand = sum(32 * made.cost(made.build_plan().stage(step, ())).total for step in range(10))
    assert total(made, stages, Machine()).flops == by_hand


@pytest.mark.parametrize(("precision", "rate"), [("auto", 989e12), ("bf16", 989e12), ("fp32", 67e12)])
def test_hours_are_those_of_the_precisions_peak_and_of_the_memorys_bandwidth(precision: Any, rate: float) -> None:
    made = replace(recipe("mae-tiny"), run=RunConfig(precision=precision))
    (stage,) = budget(made)
    moved = (MICRO_TRAFFIC + 7 * 4) * stage.live
    seconds = stage.clip.total * made.batch / (ASSUMED.share * rate) + moved / DEVICES["h100"].bandwidth
    assert stage.step_seconds == pytest.approx(seconds)
    assert total(made, (stage,), Machine()).hours == pytest.approx(seconds * made.steps / 3600)


def test_the_page_of_recipes_is_what_the_recipes_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no runs/ whose cost would be known
    assert (ROOT / "docs" / "recipes.md").read_text() == markdown(), "python -m layerlock.recipes.catalogue"


def test_a_row_of_the_page_says_what_a_recipe_costs() -> None:
    cells = row(RECIPES["4ds-g"])
    assert cells[:4] == ("`4ds-g`", "1,843.9", "488,282", "2,048")
    weights = 4 * 1664**2 + 2 * 1664 * 8192
    block = {n: 2 * n * weights + 4 * n * n * 1664 for n in (78, 1568 + 78)}
    forward = 44 * block[78] + 4 * block[1646] + 2 * 1568 * 1664 * 1536
    assert float(cells[4]) == pytest.approx(3 * forward * 2048 * 488_282, rel=0.01)
    assert float(cells[5].replace(",", "")) == pytest.approx(float(cells[4]) / (0.3 * 989e12) / 3600, rel=0.01)


def test_the_shapes_of_published_networks_are_transformers_defaults() -> None:
    videomae = PUBLISHED["hf:MCG-NJU/videomae-base"]
    fields = transformers.VideoMAEConfig(use_mean_pooling=False).to_dict()
    assert videomae.model == vit_config(fields)
    assert token_grid(videomae.clip.frames, videomae.clip.size, videomae.clip.size, (2, 16, 16)) == clip_grid(fields)
    vjepa, theirs = PUBLISHED["hf:facebook/vjepa2-vitl-fpc64-256"], transformers.VJEPA2Config()
    model = vjepa.model
    assert (model.width, model.depth, model.heads) == (
        theirs.hidden_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
    )
    assert (model.mlp, *model.patch) == (theirs.hidden_size * theirs.mlp_ratio, theirs.tubelet_size, 16, 16)
    assert (vjepa.clip.frames, vjepa.clip.size) == (theirs.frames_per_clip, theirs.crop_size)


def test_a_recipe_that_predicts_a_network_costs_what_that_costs_or_says_that_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    distill, teacher = recipe("distill-tiny"), recipe("static-teacher-tiny")
    (stage,) = budget(distill)
    model = PUBLISHED["hf:MCG-NJU/videomae-base"].model
    assert stage.clip.target == encoder_flops(model, 1568, 12)
    assert not stage.clip.unknown
    assert row(RECIPES["static-teacher-tiny"])[4:6] == ("unknown", "unknown")
    assert budget(teacher)[0].clip.unknown == ("runs/videomae-tiny",)
    Encoder.random(teacher.model, ClipShape(frames=16, stride=1, size=48)).save_pretrained("runs/videomae-tiny/encoder")
    (known,) = budget(teacher)
    assert known.clip.target == encoder_flops(teacher.model, teacher.tokens, teacher.model.depth)
    assert not known.clip.unknown


def test_an_adapted_encoder_has_its_own_blocks_and_clips_but_for_what_is_said(tmp_path: Path) -> None:
    model = vit("Ti", patch=(2, 8, 8), position="sincos-1d")
    shape = ClipShape(frames=8, stride=3, size=32, fps=12.5)
    Encoder.random(model, shape).save_pretrained(tmp_path)
    made = layerlock.recipe("adapt", init_from=str(tmp_path), steps=5)
    assert made.model == replace(model, position="learned")
    assert (made.clip.frames, made.clip.stride, made.clip.size, made.clip.fps) == (8, 3, 32, 12.5)
    (stage,) = (stage for _, stage in timeline(made.check(), made.steps))
    assert (stage.frozen, stage.targets) == (6, "pixels+h6")
    assert made.clip.flip == recipe("adapt").clip.flip
    said = layerlock.recipe("adapt", init_from=str(tmp_path), model=model, clip=replace(made.clip, size=48))
    assert (said.model, said.clip.size) == (model, 48)
    assert layerlock.recipe("mae-tiny", init_from=str(tmp_path)).model == recipe("mae-tiny").model


def test_an_encoder_that_cannot_be_adapted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init_from: .*blocks of another kind"):
        layerlock.recipe("adapt", init_from="hf:facebook/vjepa2-vitl-fpc64-256")
    with pytest.raises(ConfigError, match="init_from: 'nowhere' is no encoder"):
        layerlock.recipe("adapt", init_from="nowhere")


def test_what_a_plan_costs_that_observes_is_told_as_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    made = recipe("layerlock-plateau-tiny")
    (only,) = budget(made)
    assert (only.begin, only.end, only.stage.targets) == (0, None, "pixels")
    assert not foretold(budget(made))
    assert foretold(budget(recipe("layerlock-tiny")))
    throughout = made.steps * made.batch * made.cost(only.stage).total
    assert total(made, [only], Machine()).flops == throughout
    show(made)
    shown = capsys.readouterr().out
    assert f"{UNKNOWN}; throughout in its first stage {throughout:.3g} FLOPs" in shown
    assert re.search(r"│ 0-\? +│ +0 │ pixels", shown)
    assert "of a run that stays in its first stage" not in shown
    assert UNKNOWN in describe_recipe(made.recipe)
    (line,) = [line for line in markdown().splitlines() if line.startswith("| `layerlock-plateau-tiny` |")]
    assert "| unknown | unknown |" in line
