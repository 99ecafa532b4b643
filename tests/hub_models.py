"""Tiny models of transformers with every parameter away from its first value, and clips for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which both kinds of model were trained with."""
VIDEOMAE: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 8,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "use_mean_pooling": False,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 40,
}
VJEPA2: dict[str, Any] = {
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 8,
    "hidden_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_pooler_layers": 1,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}


def hub_model(kind: str, **changes: Any) -> nn.Module:
    """A `VideoMAE...` or `VJEPA2...` class of transformers by its name."""
    transformers = pytest.importorskip("transformers")
    family, fields = ("VideoMAE", VIDEOMAE) if kind.startswith("VideoMAE") else ("VJEPA2", VJEPA2)
    config = getattr(transformers, f"{family}Config")(**(fields | changes))
    model: nn.Module = getattr(transformers, kind)(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def noise(batch: int = 2, frames: int = 8, size: int = 32) -> Tensor:
    """uint8 clips `[B, T, 3, H, W]`."""
    shape = (batch, frames, 3, size, size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(6), dtype=torch.uint8)


def normalized(video_btchw: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    """What their preprocessors make of pixels."""
    mean_c11, std_c11 = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return (video_btchw.float() / 255 - mean_c11) / std_c11
