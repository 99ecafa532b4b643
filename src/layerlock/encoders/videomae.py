"""transformers' VideoMAE as an encoder of ours: its weights under our names, its arithmetic in our blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layerlock.encoders.checkpoint import Checkpoint, Colour
from layerlock.encoders.shapes import restrided
from layerlock.encoders.videomae_weights import clip_grid, vit_config, vit_from_transformers
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder

DEFAULT_COLOURS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""mean and deviation of pixels in [0, 1] of transformers' preprocessor of VideoMAE where its settings name none"""
STRIDE = 4
"""Source frames between those of a clip, of the models trained on Kinetics; no file of a checkpoint says it."""


def open_videomae(checkpoint: Checkpoint, clip: ClipShape | None) -> Encoder:
    """The encoder in a VideoMAEModel, VideoMAEForPreTraining or VideoMAEForVideoClassification.

    Raises LayerlockError for settings that ours has not and for the first tensor that is off.
    """
    where, fields = str(checkpoint.config), checkpoint.fields
    try:
        encoder = _without_values(fields, checkpoint.colours(DEFAULT_COLOURS), where)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise LayerlockError(f"{where}: not the settings of a VideoMAE ({error})") from None
    encoder.clip = restrided(encoder.clip, clip, where)
    encoder.vit.load_state_dict(vit_from_transformers(checkpoint.weights(), fields, str(checkpoint.folder)))
    return encoder


def _without_values(fields: Mapping[str, Any], colours: tuple[Colour, Colour], where: str) -> Encoder:
    try:
        model, grid = replace(vit_config(fields), mean=colours[0], std=colours[1]), clip_grid(fields)
    except LayerlockError as error:
        raise LayerlockError(f"{where}: {error}") from None
    if problems := model.problems():
        raise LayerlockError(f"{where}: {problems[0]}")
    frames, height, width = (tokens * side for tokens, side in zip(grid, model.patch, strict=True))
    if height != width:
        raise LayerlockError(f"{where}: made for frames of {height} x {width} pixels; only square ones can be read")
    return Encoder(model, ClipShape(frames=frames, stride=STRIDE, size=height))
