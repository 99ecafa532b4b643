"""The first weights of a run from another model: a run, an encoder folder, a published checkpoint."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from layerlock.encoders import open_encoder
from layerlock.errors import ConfigError
from layerlock.learn.learner import Learner
from layerlock.model.encoder import Encoder, check_weights
from layerlock.model.patches import Grid, resampled


def take_weights(learner: Learner, init_from: str) -> None:
    """Puts the weights of any encoder that `open_encoder` knows into a learner.

    A table of positions of another grid of tokens is resampled; a fixed one can begin a learned one. Raises ConfigError
    for a model of another shape and for positions that mean something else here, LayerlockError for what cannot be
    read.
    """
    encoder = open_encoder(init_from)
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            [f"init_from: {init_from} has blocks of another kind than ours, which cannot be trained here"]
        )
    vit, own = encoder.vit, learner.vit
    learned = own.config.position == "learned" and isinstance(vit.position, Tensor)
    old, new = asdict(vit.config), asdict(own.config)
    wrong = [
        f"model.{name}: {init_from} has {old[name]}, this run {new[name]}"
        for name in new
        if old[name] != new[name] and not (learned and name == "position")
    ]
    if vit.config.position == "sincos-1d" and not learned and vit.grid != own.grid:
        wrong.append(
            f"clip: {init_from} numbers the tokens of {_named(vit.grid)}, which are others in clips of "
            f"{_named(own.grid)}; --model.position learned begins with its table, resampled"
        )
    if wrong:
        raise ConfigError(wrong)
    weights = vit.state_dict()
    if learned:
        assert isinstance(vit.position, Tensor)
        weights["position"] = resampled(vit.position.detach()[None], vit.grid, own.grid)[0]
    check_weights(init_from, weights, own.state_dict())
    own.load_state_dict(weights)


def _named(grid: Grid) -> str:
    return " x ".join(map(str, grid))
