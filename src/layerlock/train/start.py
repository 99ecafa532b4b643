"""The first weights of a run from another model: a run, an encoder folder, a published checkpoint."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from layerlock.encoders import open_encoder
from layerlock.errors import ConfigError
from layerlock.model.encoder import Encoder, check_weights
from layerlock.model.patches import Grid, resampled
from layerlock.model.vit import ViT, ViTConfig


def weights_from(init_from: str, model: ViTConfig, grid: Grid) -> dict[str, Tensor]:
    """The weights of any encoder that `open_encoder` knows, as the first ones of a backbone on a grid of tokens.

    A table of positions of another grid of tokens is resampled; a fixed one can begin a learned one. Raises ConfigError
    for a model of another shape and for positions that mean something else here, LayerlockError for what cannot be
    read.
    """
    encoder = open_encoder(init_from)
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            [f"init_from: {init_from} has blocks of another kind than ours, which cannot be trained here"]
        )
    vit = encoder.vit
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


def _named(grid: Grid) -> str:
    return " x ".join(map(str, grid))
