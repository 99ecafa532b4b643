"""The settings of Tables 8 and 10 of the paper, typed a second time."""

from __future__ import annotations

import pytest

from layerlock.config import Config
from layerlock.errors import LayerlockError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.plan import timeline
from layerlock.recipes import RECIPES, recipe

TABLE_8 = ["4ds-g", "4ds-g-layerlock", "4ds-g-layerlock-sparse", "4ds-e", "4ds-e-layerlock"]
TABLE_10 = ["vit-g-250m", "vit-g-250m-freeze"]


@pytest.mark.parametrize("name", TABLE_8)
def test_table_8_is_kept(name: str) -> None:
    made = recipe(name)
    assert (made.recipe, made.steps, made.batch) == (name, 488_282, 2048)
    assert made.optim.lr == 3e-4
    assert round(made.optim.warmup * made.steps) == 10_000
    assert made.optim.weight_decay == 0.05


@pytest.mark.parametrize("name", TABLE_10)
def test_table_10_is_kept_for_vit_g_on_250_million_clips(name: str) -> None:
    made = recipe(name)
    assert made.batch == 2048
    assert made.steps * made.batch == pytest.approx(250e6, rel=1e-4)
    assert made.optim.lr == 1e-4
    assert round(made.optim.warmup * made.steps) == 5_000
    assert made.optim.weight_decay == 0.0


@pytest.mark.parametrize("name", TABLE_8 + TABLE_10)
def test_what_both_tables_share_is_kept(name: str) -> None:
    made = recipe(name)
    clip, model, optim = made.clip, made.model, made.optim
    assert (clip.frames, clip.stride, clip.size, clip.resize, clip.flip) == (16, 2, 224, 1.15, True)
    shape = (1792, 56, 15360, 16) if "-e" in name else (1664, 48, 8192, 16)
    assert (model.width, model.depth, model.mlp, model.heads) == shape
    assert (model.patch, model.position) == ((2, 16, 16), "rope")
    assert (model.rope_fractions, model.rope_wavelength) == ((0.10, 0.25, 0.25), 10_000)
    assert (made.masking.keep, made.context_tokens) == (0.05, 78)
    assert (made.decoder.blocks, made.decoder.tokens) == (4, "position")
    assert (optim.betas, optim.end_lr, optim.clip_norm) == ((0.90, 0.95), 0.0, None)
    assert round(optim.mini_warmup * made.steps) == 1_000


@pytest.mark.parametrize(
    ("name", "last", "fraction"),
    [
        ("4ds-g", "pixels", 1.0),
        ("4ds-g-layerlock", "h32", 1.0),
        ("4ds-g-layerlock-sparse", "h32", 0.05),
        ("4ds-e", "pixels", 1.0),
        ("4ds-e-layerlock", "h29", 1.0),
        ("vit-g-250m", "pixels", 1.0),
        ("vit-g-250m-freeze", "pixels", 1.0),
        ("layerlock-tiny", "h4", 1.0),
        ("layerlock-multi-tiny", "pixels+h1+h2+h3+h4", 1.0),
    ],
)
def test_recipes_end_at_their_targets(name: str, last: str, fraction: float) -> None:
    made: Config = recipe(name)
    stage = timeline(made.build_plan(), made.steps)[-1][1]
    assert stage.targets == last
    assert stage.taps[-1].fraction == fraction


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_knows_its_name_and_says_what_it_is(name: str) -> None:
    assert recipe(name).recipe == name
    assert (RECIPES[name].__doc__ or "").strip()


def test_tiny_is_at_least_eight_encoder_and_two_decoder_blocks_on_16_frames() -> None:
    for name in RECIPES:
        if name.endswith("tiny"):
            made = recipe(name)
            assert made.encoder_depth >= 8
            assert (made.decoder.blocks if isinstance(made.decoder, BackboneDecoding) else made.decoder.depth) >= 2
            assert made.clip.frames == 16


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(LayerlockError, match=r"layerlok-tiny.*layerlock-tiny"):
        recipe("layerlok-tiny")
