"""The clips that readouts are trained and tested on."""

from __future__ import annotations

from dataclasses import replace

from layerlock.data import ClipConfig
from layerlock.evaluation.config import EvaluateConfig
from layerlock.features.clips import plain_clip
from layerlock.model.encoder import ClipShape

JITTER, GREY = 0.8, 0.1
"""how often colours of training clips change, and are lost (A.4.1); never for depth (A.4.3), which is flipped instead:
an action can have a left and a right
"""


def training_clip(config: EvaluateConfig, shape: ClipShape) -> ClipConfig:
    """Clips of the encoder's shape with random crops, flips and colours."""
    depth = config.task == "depth"
    jitter, grey = (0.0, 0.0) if depth else (JITTER, GREY)
    return replace(
        still_clip(config, shape),
        flip=depth if config.flip is None else config.flip == "yes",
        jitter=jitter if config.jitter is None else config.jitter,
        grey=grey if config.grey is None else config.grey,
    )


def still_clip(config: EvaluateConfig, shape: ClipShape) -> ClipConfig:
    """The same without anything random: for the middle of a video, cut in the centre."""
    return plain_clip(shape, stride=config.stride, resize=config.resize)
