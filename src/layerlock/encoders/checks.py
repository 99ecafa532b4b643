"""How an encoder's weights are told apart from others, and whether it keeps its word."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from layerlock import draws
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError


def fingerprint(encoder: FrozenEncoder) -> str:
    """Sixteen hexadecimal digits of an encoder's kind, clip, settings and weights; of one that is no torch module, of
    what it says of one clip.
    """
    total = hashlib.blake2b(f"{type(encoder).__name__} {encoder.clip} {encoder.grid}".encode(), digest_size=8)
    if isinstance(encoder, nn.Module):
        total.update(_settings(encoder).encode())
        for name, value in sorted({**encoder.state_dict(), **dict(encoder.named_buffers())}.items()):
            total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            total.update(_bits(value))
    else:
        total.update(_bits(_of_noise(encoder)))
    return total.hexdigest()


def _bits(x: Tensor) -> memoryview:
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


@torch.no_grad()
def _of_noise(encoder: FrozenEncoder) -> Tensor:
    """Features of a clip of noise, always the same, after the last block."""
    clip = encoder.clip
    values = draws.generator(0, "fingerprint")
    shape = (1, clip.frames, 3, clip.size, clip.size)
    noise_btchw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=values)
    return encoder.forward_intermediates(noise_btchw, [encoder.depth])[0]


def _settings(encoder: nn.Module) -> str:
    """What a model computes beside its weights, as far as its parts have a `config`."""
    return "\n".join(sorted({repr(part.config) for part in encoder.modules() if hasattr(part, "config")}))


@torch.no_grad()
def check_features(encoder: FrozenEncoder, device: torch.device) -> None:
    """Sends one black clip through all blocks. LayerlockError where features are not as the encoder says, or not
    finite: cosines and choices would be made of them all the same.
    """
    clip, (t, h, w) = encoder.clip, encoder.grid
    video_btchw = torch.zeros(1, clip.frames, 3, clip.size, clip.size, dtype=torch.uint8, device=device)
    features_bnd = encoder.forward_intermediates(video_btchw, [encoder.depth])[0]
    found = list(features_bnd.shape)
    if found != [1, t * h * w, encoder.width]:
        raise LayerlockError(
            f"{encoder.name}: features of one clip are {found}, where it speaks of {t}x{h}x{w} tokens of width "
            f"{encoder.width}"
        )
    if not features_bnd.isfinite().all():
        raise LayerlockError(f"{encoder.name}: features of a black clip are not finite; its weights are damaged")
