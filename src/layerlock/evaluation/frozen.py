"""What an evaluation asks of an encoder, and how its weights are told apart from others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder, load
from layerlock.model.patches import Grid


class FrozenEncoder(Protocol):
    """Clips in, features of any depth out. `Encoder` is one."""

    @property
    def clip(self) -> ClipShape:
        """The clips it takes."""
        ...

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width."""
        ...

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        ...

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        ...

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Features `[B, N, D]` after each of these blocks, tokens in order (t, h, w); runs no deeper than asked."""
        ...


def open_encoder(name: str, *, device: torch.device | str = "cpu", compute: torch.dtype = torch.float32) -> Encoder:
    """The encoder of a run folder or an encoder folder. Raises LayerlockError where there is none."""
    encoder = load(Path(name), device=device)
    encoder.vit.compute = compute
    return encoder


def random_like(encoder: FrozenEncoder, *, seed: int = 0) -> FrozenEncoder:
    """The same shape with the weights that training starts from. LayerlockError for an encoder that is not ours."""
    if not isinstance(encoder, Encoder):
        raise LayerlockError(f"{type(encoder).__name__}: no random weights of this shape; say --baselines no")
    made = Encoder.random(encoder.vit.config, encoder.clip, seed=seed).to(encoder.vit.embed.weight.device)
    made.vit.compute = encoder.vit.compute
    return made


def at_depth(encoder: FrozenEncoder, fraction: float) -> int:
    """The block `floor(fraction * L)`, at least 1 (LayerLock sec. 3.6)."""
    return max(1, int(fraction * encoder.depth + 1e-9))


def fingerprint(encoder: FrozenEncoder) -> str:
    """Sixteen hexadecimal digits of an encoder's kind, clip and weights."""
    total = hashlib.blake2b(f"{type(encoder).__name__} {encoder.clip} {encoder.grid}".encode(), digest_size=8)
    if isinstance(encoder, nn.Module):
        for name, value in sorted(encoder.state_dict().items()):
            total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


@torch.no_grad()
def check_features(name: str, encoder: FrozenEncoder, device: torch.device) -> None:
    """Sends one black clip through the first block. LayerlockError where features are not as the encoder says."""
    clip, (t, h, w) = encoder.clip, encoder.grid
    video_btchw = torch.zeros(1, clip.frames, 3, clip.size, clip.size, dtype=torch.uint8, device=device)
    found = list(encoder.forward_intermediates(video_btchw, [1])[0].shape)
    if found != [1, t * h * w, encoder.width]:
        raise LayerlockError(
            f"{name}: features of one clip are {found}; a grid of {t}x{h}x{w} tokens of width {encoder.width} was said"
        )
