"""Published encoders whose shape is known by their name, so that plans and costs need not open them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerlock.encoders.videomae import STRIDE
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.encoders.vjepa2 import FPS
from layerlock.model.encoder import ClipShape
from layerlock.model.sizes import vit
from layerlock.model.vit import ViTConfig

COLOURS = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Its blocks and the clips that it takes: a VideoMAE has one number of frames, a V-JEPA 2 any, and blocks of its
    own, which are not trained here.
    """

    kind: Literal["videomae", "vjepa2"]
    model: ViTConfig
    clip: ClipShape


PUBLISHED = {
    "hf:MCG-NJU/videomae-base": Published(
        kind="videomae",
        model=vit(
            "B",
            patch=(2, 16, 16),
            position="sincos-1d",
            gelu="exact",
            norm_eps=1e-12,
            key_bias=False,
            final_norm=True,
            **COLOURS,
        ),
        clip=ClipShape(frames=16, stride=STRIDE, size=224),
    ),
    "hf:facebook/vjepa2-vitl-fpc64-256": Published(
        kind="vjepa2",
        model=vit("L", patch=(2, 16, 16), position="rope-attention", gelu="exact", final_norm=True, **COLOURS),
        clip=ClipShape(frames=64, stride=1, fps=FPS, size=256),
    ),
}
"""What recipes name."""


def published(name: str) -> Published | None:
    """What is known of an encoder by its name alone, whatever its revision; None for others, and where a folder here
    has that name.
    """
    return None if Path(name.partition(":")[2]).is_dir() else PUBLISHED.get(name.partition("@")[0])
