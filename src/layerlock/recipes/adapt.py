"""Encoders that are there, adapted to other footage: the lower half stays, the upper half learns."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plans import Progressive
from layerlock.model.encoder import ClipShape
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import ViTConfig
from layerlock.recipes import small
from layerlock.recipes.record import Recipe
from layerlock.train.start import shape_of_start

UPPER_HALF = Progressive(
    target="frozen", frozen="half", keep_targets=True, normalized=True, masked=True, patches="normalized"
)
"""Predicts normalised pixels and the output of the last frozen block at masked positions."""


def adapted(config: Config, init_from: str) -> Config:
    """A config with the blocks and the clips of the encoder `init_from`, which its first weights come from.

    Raises ConfigError for an encoder that cannot be trained here or read.
    """
    return _shaped(config, init_from, *shape_of_start(init_from))


def _shaped(config: Config, init_from: str, model: ViTConfig, shape: ClipShape) -> Config:
    clip = replace(config.clip, frames=shape.frames, stride=shape.stride, fps=shape.fps, size=shape.size)
    return replace(config, init_from=init_from, model=model, clip=clip)


ADAPT = Config(
    recipe="adapt",
    steps=20_000,
    batch=128,
    clip=ClipConfig(resize=1.15, flip=True),
    masking=TubeMasking(keep=0.10),
    decoder=SeparateDecoding(width=384, depth=4, heads=6, mlp=1536),
    plan=UPPER_HALF,
    optim=OptimConfig(lr=1.5e-4, warmup=0.05, weight_decay=0.05),
    run=RunConfig(workers=8, log_every=20, checkpoint_every=500),
)
_VIDEOMAE = next(made.config for made in small.RECIPES if made.name == "videomae-tiny")
ADAPT_TINY = replace(
    _VIDEOMAE,
    recipe="adapt-tiny",
    init_from="runs/videomae-tiny",
    plan=UPPER_HALF,
    optim=replace(_VIDEOMAE.optim, lr=5e-4),
)
RECIPES = (
    Recipe(
        config=adapted(ADAPT, "hf:MCG-NJU/videomae-base"),
        about="The upper half of VideoMAE, or of --init-from, learns to predict pixels and its frozen lower half",
        adapts=True,
    ),
    Recipe(
        config=ADAPT_TINY,
        about="A small version, for the run folder --init-from: first pretrain videomae-tiny",
        adapts=True,
    ),
)
