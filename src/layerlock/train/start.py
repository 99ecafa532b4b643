"""The first weights of a run from another model: a run, an encoder folder, a published checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor

from layerlock.encoders import open_encoder
from layerlock.encoders.published import published
from layerlock.errors import ConfigError, LayerlockError
from layerlock.model.encoder import ClipShape, Encoder, check_weights
from layerlock.model.patches import Grid, resampled
from layerlock.model.vit import ViT, ViTConfig


def weights_from(init_from: str, model: ViTConfig, grid: Grid) -> dict[str, Tensor]:
    """The weights of any encoder that `open_encoder` knows, as the first ones of a backbone on a grid of tokens.

    A table of positions of another grid of tokens is resampled; a fixed one can begin a learned one. Raises ConfigError
    for a model of another shape, for positions that mean something else here and for what cannot be read.
    """
    vit = _open(init_from).vit
    learned = model.position == "learned" and isinstance(vit.position, Tensor)
    old, new = asdict(vit.config), asdict(model)
    wrong = [
        f"model.{name}: {init_from} has {old[name]}, this run {new[name]}"
        for name in new
        if old[name] != new[name] and not (learned and name == "position")
    ]
    if vit.config.position == "sincos-1d" and not learned and vit.grid != grid:
        wrong.append(
            f"clip: {init_from} numbers the tokens of {_named(vit.grid)}, which are others in clips of "
            f"{_named(grid)}; --model.position learned begins with its table, resampled"
        )
    if wrong:
        raise ConfigError(wrong)
    weights = vit.state_dict()
    if learned:
        assert isinstance(vit.position, Tensor)
        weights["position"] = resampled(vit.position.detach()[None], vit.grid, grid)[0]
    with torch.device("meta"):
        check_weights(init_from, weights, ViT(model, grid).state_dict())
    return weights


def shape_of_start(init_from: str) -> tuple[ViTConfig, ClipShape]:
    """The blocks and the clips of an encoder that a run is to begin with, for a run with any clips.

    A fixed table over the number of the token becomes a learned one, which can be resampled. Raises ConfigError for an
    encoder that cannot be trained here or read.
    """
    known = published(init_from)
    if known is None:
        encoder = _open(init_from)
        model, clip = encoder.vit.config, encoder.clip
    elif known.kind == "videomae":
        model, clip = known.model, known.clip
    else:
        raise _of_another_kind(init_from)
    return (replace(model, position="learned") if model.position == "sincos-1d" else model), clip


def _open(init_from: str) -> Encoder:
    try:
        encoder = open_encoder(init_from)
    except LayerlockError as error:
        raise ConfigError([f"init_from: {error}"]) from None
    if not isinstance(encoder, Encoder):
        raise _of_another_kind(init_from)
    return encoder


def _of_another_kind(init_from: str) -> ConfigError:
    return ConfigError([f"init_from: {init_from} has blocks of another kind than ours, which cannot be trained here"])


def _named(grid: Grid) -> str:
    return " x ".join(map(str, grid))
