"""Encoders with random weights: what a trained one has to beat."""

from __future__ import annotations

from layerlock.encoders.protocol import FrozenEncoder
from layerlock.encoders.vjepa2 import VJEPA2Encoder
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.patches import Grid
from layerlock.model.sizes import vit

PAPER_CLIP = ClipShape(frames=16, stride=2, size=224)
"""The clips of LayerLock section 4."""


def random_like(encoder: FrozenEncoder, *, seed: int = 0) -> FrozenEncoder:
    """An encoder of the same shape and clips, on the CPU, with the weights that training starts from.

    Raises LayerlockError for one that has no weights.
    """
    if not isinstance(encoder, Encoder | VJEPA2Encoder):
        raise LayerlockError(f"{encoder.name}: has no weights that could be random; --baselines no leaves them out")
    other = encoder.with_random_weights(seed)
    other.name = f"random:{encoder.name}"
    return other


def open_size(size: str, clip: ClipShape | None, seed: int) -> Encoder:
    """Random weights in a size of `layerlock.model.sizes`, for `clip` or the paper's clips.

    Raises LayerlockError for clips that cannot be.
    """
    clip = clip or PAPER_CLIP
    if problems := clip.problems():
        raise LayerlockError(f"random:{size}: {problems[0]}")
    return Encoder.random(vit(size, patch=fitting_patch(clip)), clip, seed=seed)


def fitting_patch(clip: ClipShape) -> Grid:
    """The paper's 2x16x16 (section 3.1), each side halved until it divides the clip."""

    def halved(side: int, whole: int) -> int:
        return side if whole % side == 0 else halved(side // 2, whole)

    return halved(2, clip.frames), halved(16, clip.size), halved(16, clip.size)
