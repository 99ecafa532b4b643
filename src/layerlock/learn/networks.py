"""Who computes the features that a loss predicts: the model itself, the average of its weights, any frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.encoders import FrozenEncoder, open_encoder
from layerlock.encoders.checks import fingerprint
from layerlock.encoders.vjepa2 import VJEPA2Encoder
from layerlock.errors import LayerlockError
from layerlock.learn.targets import MODEL, TEACHER
from layerlock.model.cost import encoder_flops
from layerlock.model.encoder import Encoder
from layerlock.model.patches import Grid, gather_tokens, resampled
from layerlock.model.vit import ViT, ViTConfig


class Network(Protocol):
    """Clips in, features of some blocks out, on the learner's token grid; it may follow the model that learns."""

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        ...

    def features(
        self, video_btchw: Tensor, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None
    ) -> dict[int, Tensor]:
        """The output of each of the blocks, `[B, N, D]`, or `[B, Q, D]` of the tokens `kept_bq`.

        The clips are uint8 or in [0, 1], whole and as patches; a network that can run on the kept tokens alone does.
        """
        ...

    def enter(self, student: ViT, frozen: int) -> None:
        """What a switch to so many frozen blocks of the student changes."""
        ...

    def after_step(self, student: ViT, decay: float) -> None:
        """What follows an optimizer step of the student."""
        ...


def backbone_features(
    vit: ViT, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None, *, recompute: bool = False
) -> dict[int, Tensor]:
    """As `Network.features`, of a ViT of the learner's own grid, no deeper than asked; the last one normed."""
    x = vit.project(patches_bnp if kept_bq is None else gather_tokens(patches_bnp, kept_bq), kept_bq)
    rotation, at, found = vit.rotation(kept_bq), 0, {}
    for block in sorted(blocks):
        x, at = vit.run(x, rotation, at, block, recompute=recompute), block
        found[block] = vit.norm_out(x) if block == len(vit.blocks) else x
    return found


class Own:
    """The model that learns; its features have a graph where gradients are enabled."""

    def __init__(self, vit: ViT, *, recompute: bool) -> None:
        self.vit, self.recompute = vit, recompute

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        return self.vit.config.width

    def features(
        self, video_btchw: Tensor, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None
    ) -> dict[int, Tensor]:
        """As every `Network`."""
        return backbone_features(self.vit, patches_bnp, blocks, kept_bq, recompute=self.recompute)

    def enter(self, student: ViT, frozen: int) -> None:
        """Nothing: it is the student."""

    def after_step(self, student: ViT, decay: float) -> None:
        """Nothing."""


class Foreign:
    """A frozen encoder on its own size of frames, grid of tokens and normalisation; never part of a checkpoint."""

    def __init__(self, encoder: FrozenEncoder, grid: Grid, compute: torch.dtype) -> None:
        self.encoder, self.grid, self.compute = encoder, grid, compute
        self.device: torch.device | None = None

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        return self.encoder.width

    def features(
        self, video_btchw: Tensor, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None
    ) -> dict[int, Tensor]:
        """As every `Network`; the whole clip runs, and its features are resampled to the learner's grid."""
        if self.device != video_btchw.device:
            self.encoder.prepare(video_btchw.device, self.compute)
            self.device = video_btchw.device
        size = self.encoder.clip.size
        video = video_btchw.float() / 255 if video_btchw.dtype == torch.uint8 else video_btchw.float()
        if video.shape[-1] != size:
            frames = F.interpolate(video.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True)
            video = frames.clamp(0, 1).unflatten(0, video.shape[:2])
        found = {}
        for block, own_bnd in zip(blocks, self.encoder.forward_intermediates(video, blocks), strict=True):
            x_bnd = resampled(own_bnd, self.encoder.grid, self.grid)
            found[block] = x_bnd if kept_bq is None else gather_tokens(x_bnd, kept_bq)
        return found

    def enter(self, student: ViT, frozen: int) -> None:
        """Nothing: it follows nobody."""

    def after_step(self, student: ViT, decay: float) -> None:
        """Nothing."""


@cache
def frozen_encoder(name: str, frames: int) -> FrozenEncoder:
    """The encoder of that name (docs/encoders.md) for clips of so many frames, opened once in a process.

    Raises LayerlockError where there is none, where it runs in blocks whose cost is not known, or where it takes clips
    of another length.
    """
    encoder = open_encoder(name)
    if encoder.clip.frames != frames:
        try:
            encoder = open_encoder(name, clip=replace(encoder.clip, frames=frames))
        except LayerlockError:
            raise LayerlockError(
                f"{name} takes clips of {encoder.clip.frames} frames, not of {frames}; set clip.frames"
            ) from None
    return encoder


def shape_of(encoder: FrozenEncoder) -> ViTConfig:
    """The shape of an encoder's blocks, which its cost follows from."""
    if isinstance(encoder, Encoder):
        return encoder.vit.config
    assert isinstance(encoder, VJEPA2Encoder), "encoders opened by name are of these two kinds"
    config = encoder.config
    return ViTConfig(
        width=encoder.width,
        depth=encoder.depth,
        mlp=int(encoder.width * config.mlp_ratio),
        heads=config.num_attention_heads,
        patch=(config.tubelet_size, config.patch_size, config.patch_size),
    )


def foreign_flops(encoder: FrozenEncoder, block: int) -> int:
    """Of one clip through an encoder up to a block."""
    t, h, w = encoder.grid
    return encoder_flops(shape_of(encoder), t * h * w, block)


def foreign_problems(network: str, depth: int, frames: int) -> list[str]:
    """What is wrong with asking a frozen encoder for its block `depth` on clips of so many frames, a line each."""
    try:
        encoder = frozen_encoder(network, frames)
    except LayerlockError as error:
        return [str(error)]
    return [f"predicts block {depth} of {network}, which has {encoder.depth}"] if depth > encoder.depth else []


def fingerprints(networks: Iterable[str], frames: int) -> dict[str, str]:
    """What tells the weights of frozen encoders from others, by name."""
    return {name: fingerprint(frozen_encoder(name, frames)) for name in networks if name not in (MODEL, TEACHER)}
