"""The clips that readouts are trained and tested on."""

from __future__ import annotations

from dataclasses import replace

from layerlock.data import ClipConfig
from layerlock.evaluation.config import EvaluateConfig
from layerlock.model.encoder import ClipShape

ACTION = {"flip": False, "jitter": 0.8, "grey": 0.1}
"""what becomes of training clips of actions (A.4.1); without flips, since an action can have a left and a right"""
DEPTH = {"flip": True, "jitter": 0.0, "grey": 0.0}
"""and of depth (A.4.3)"""


def training_clip(config: EvaluateConfig, shape: ClipShape) -> ClipConfig:
    """Clips of the encoder's shape with random crops, flips and colours."""
    usual = DEPTH if config.task == "depth" else ACTION
    flip, jitter, grey = (
        usual[name] if (value := getattr(config, name)) is None else value for name in ("flip", "jitter", "grey")
    )
    return ClipConfig(
        frames=shape.frames,
        stride=config.stride or shape.stride,
        fps=None if config.stride else shape.fps,
        size=shape.size,
        resize=config.resize,
        flip=flip in (True, "yes"),
        jitter=float(jitter),
        grey=float(grey),
    )


def plain_clip(config: EvaluateConfig, shape: ClipShape) -> ClipConfig:
    """The same without anything random: for the middle of a video, cut in the centre."""
    return replace(training_clip(config, shape), flip=False, jitter=0.0, grey=0.0)
