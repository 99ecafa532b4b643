"""Model sizes by name (LayerLock, 4DS, DeiT-Tiny), and small ones for laptops and tests."""

from __future__ import annotations

from typing import Any

from layerlock.model.vit import ViTConfig

# name: width, depth, MLP, heads
SIZES: dict[str, tuple[int, int, int, int]] = {
    "nano": (128, 8, 512, 4),
    "tiny": (192, 10, 768, 3),
    "small": (256, 14, 1024, 4),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "S16": (384, 16, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "G": (1664, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}


def vit(size: str, **changes: Any) -> ViTConfig:
    """The config of a named size, with `changes` to its other fields. Raises KeyError for an unknown name."""
    width, depth, mlp, heads = SIZES[size]
    return ViTConfig(width=width, depth=depth, mlp=mlp, heads=heads, **changes)
