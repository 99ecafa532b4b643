"""Published encoders whose shape is known by their name, so that plans and costs need not open them."""

from __future__ import annotations

from dataclasses import dataclass

from layerlock.encoders.videomae import STRIDE
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.encoders.vjepa2 import FPS
from layerlock.model.encoder import ClipShape
from layerlock.model.sizes import vit
from layerlock.model.vit import ViTConfig

COLOURS = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Its blocks, the clips that it takes, and whether they can have any number of frames."""

    model: ViTConfig
    clip: ClipShape
    any_frames: bool = False


PUBLISHED = {
    "hf:MCG-NJU/videomae-base": Published(
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
        model=vit("L", patch=(2, 16, 16), position="rope-attention", gelu="exact", final_norm=True, **COLOURS),
        clip=ClipShape(frames=64, stride=1, fps=FPS, size=256),
        any_frames=True,
    ),
}
"""What recipes name. The blocks of V-JEPA 2 run as transformers has them; their shape tells their cost."""
