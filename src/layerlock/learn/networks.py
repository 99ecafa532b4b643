"""Who computes the features that a loss predicts: the model itself, the average of its weights, any frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.encoders import FrozenEncoder, at_hand, open_encoder
from layerlock.encoders.checks import fingerprint
from layerlock.encoders.published import published
from layerlock.encoders.run import checkpoints_of, run_and_step
from layerlock.encoders.vjepa2 import VJEPA2Encoder
from layerlock.errors import LayerlockError
from layerlock.learn.targets import LAST, OWN
from layerlock.model.cost import encoder_flops
from layerlock.model.encoder import Encoder
from layerlock.model.patches import Grid, gather_tokens, resampled, token_grid
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
    rotation, at, features = vit.rotation(kept_bq), 0, {}
    for block in sorted(blocks):
        x, at = vit.run(x, rotation, at, block, recompute=recompute), block
        features[block] = vit.norm_out(x) if block == len(vit.blocks) else x
    return features


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
    """A frozen encoder on its own size of frames, grid of tokens and normalisation; never part of a checkpoint.

    It is opened when its first features are asked for.
    """

    def __init__(self, name: str, frames: int, grid: Grid, compute: torch.dtype) -> None:
        self.name, self.frames, self.grid, self.compute = name, frames, grid, compute
        self.encoder: FrozenEncoder | None = None
        self.device: torch.device | None = None
        self.opening = Lock()  # all shares of a batch ask for it at once (`learn/shares.py`)

    @property
    def width(self) -> int:
        """Length of a feature, D. LayerlockError where the encoder is not on this machine."""
        shape = known_shape(self.name, self.frames)
        if shape is None:
            raise LayerlockError(f"{self.name}: not on this machine")
        return shape.model.width

    def features(
        self, video_btchw: Tensor, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None
    ) -> dict[int, Tensor]:
        """As every `Network`; the whole clip runs, and its features are resampled to the learner's grid."""
        encoder = self._on(video_btchw.device)
        size = encoder.clip.size
        video = video_btchw.float() / 255 if video_btchw.dtype == torch.uint8 else video_btchw.float()
        if video.shape[-1] != size:
            frames = F.interpolate(video.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True)
            video = frames.clamp(0, 1).unflatten(0, video.shape[:2])
        depths = [encoder.depth if block == LAST else block for block in blocks]
        features = {}
        for block, own_bnd in zip(blocks, encoder.forward_intermediates(video, depths), strict=True):
            x_bnd = resampled(own_bnd, encoder.grid, self.grid)
            features[block] = x_bnd if kept_bq is None else gather_tokens(x_bnd, kept_bq)
        return features

    def _on(self, device: torch.device) -> FrozenEncoder:
        with self.opening:
            encoder = self.encoder or open_frozen(self.name, self.frames)
            if self.device != device:
                encoder.prepare(device, self.compute)
                self.encoder, self.device = encoder, device
            return encoder

    def enter(self, student: ViT, frozen: int) -> None:
        """Nothing: it follows nobody."""

    def after_step(self, student: ViT, decay: float) -> None:
        """Nothing."""


def open_frozen(name: str, frames: int) -> FrozenEncoder:
    """The encoder of that name (docs/encoders.md) for clips of so many frames.

    Raises LayerlockError where there is none, and where it does not take such clips.
    """
    encoder = open_encoder(name)
    if encoder.clip.frames == frames:
        return encoder
    try:
        return open_encoder(name, clip=replace(encoder.clip, frames=frames))
    except LayerlockError as error:
        raise LayerlockError(f"{error}; set clip.frames") from None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is known of a frozen encoder without its weights: what its cost follows from."""

    model: ViTConfig
    grid: Grid

    def flops(self, blocks: Sequence[int]) -> int:
        """Of one clip, as deep as the deepest of `blocks`."""
        t, h, w = self.grid
        return encoder_flops(self.model, t * h * w, self.model.depth if LAST in blocks else max(blocks))


@dataclass(frozen=True, kw_only=True)
class Opened(Shape):
    """The same of one that was opened, and what tells its weights from others."""

    fingerprint: str


def known_shape(name: str, frames: int) -> Shape | None:
    """The shape of an encoder for clips of so many frames; None where it would have to be downloaded or is not there.

    Raises LayerlockError for one that is there and cannot be used.
    """
    known = published(name)
    if known is None:
        return opened(name, frames) if at_hand(name) else None
    clip, model = known.clip, known.model
    if clip.frames != frames and known.kind == "videomae":
        raise LayerlockError(f"{name}: takes clips of {clip.frames} frames, not of {frames}; set clip.frames")
    try:
        return Shape(model=model, grid=token_grid(frames, clip.size, clip.size, model.patch))
    except ValueError as error:
        raise LayerlockError(f"{name}: {error}; set clip.frames") from None


def opened(name: str, frames: int) -> Opened:
    """The shape and the fingerprint of an encoder, which is opened for them, downloaded if need be.

    Raises LayerlockError where it cannot be used.
    """
    return _opened(name, frames, _stamp(name))


@lru_cache
def _opened(name: str, frames: int, stamp: object) -> Opened:
    encoder = open_frozen(name, frames)
    return Opened(model=_blocks(encoder), grid=encoder.grid, fingerprint=fingerprint(encoder))


def _stamp(name: str) -> tuple[tuple[int, int], ...]:
    """Times and sizes of the files of an encoder: one that is trained again is another."""
    path = Path(name.rpartition(":")[2])
    folders = [path, path / "encoder"]
    if place := run_and_step(str(path)):
        run, step = place
        folders += [run, *filter(None, [checkpoints_of(run / "checkpoints").get(step)])]
    files = (
        [path]
        if path.is_file()
        else [p for f in folders for end in ("json", "safetensors") for p in f.glob(f"*.{end}")]
    )
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in (file.stat() for file in sorted(files)))


def _blocks(encoder: FrozenEncoder) -> ViTConfig:
    """The shape of an encoder's blocks."""
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


def foreign_problems(network: str, blocks: Sequence[int], frames: int, *, fetch: bool = False) -> list[str]:
    """What is wrong with asking a frozen encoder for some blocks on clips of so many frames, a line each.

    Of one that is not on this machine nothing is, but where it is to be fetched.
    """
    try:
        shape = opened(network, frames) if fetch else known_shape(network, frames)
    except LayerlockError as error:
        return [str(error)]
    depth = shape.model.depth if shape else max(blocks)
    return [f"{network}: has {depth} blocks, no block {block}" for block in blocks if block > depth]


def fingerprints(networks: Iterable[str], frames: int) -> dict[str, str]:
    """What tells the weights of frozen encoders from others, by name."""
    return {name: opened(name, frames).fingerprint for name in networks if name not in OWN}
