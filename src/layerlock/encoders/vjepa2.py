"""transformers' V-JEPA 2 as a reader of features: its own blocks, run one by one.

They are not rewritten as ours: the angles of their rotation are laid out as one half after the other while its pairs
are neighbours, which is no rotation, and the published weights were trained with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerlock import draws
from layerlock.encoders.checkpoint import EXTRA, Checkpoint, Colour
from layerlock.encoders.shapes import restrided
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.errors import LayerlockError, one_line
from layerlock.model.cores import clip_by_clip
from layerlock.model.encoder import ClipShape, check_clips, check_weights
from layerlock.model.patches import Grid, token_grid

FPS = 4.0
"""Frames a second of the clips that V-JEPA 2 was trained on; no file of a checkpoint says it."""
_HEADS = ("predictor.", "pooler.", "classifier.")


class VJEPA2Encoder(nn.Module):
    """A `FrozenEncoder` around transformers' VJEPA2Encoder, whose positions are those of its own grid of patches."""

    model: Any
    mean: Tensor
    std: Tensor
    name: str = "vjepa2"

    def __init__(self, model: Any, clip: ClipShape, colours: tuple[Colour, Colour]) -> None:
        super().__init__()
        self.model, self.clip, self.config = model, clip, model.config
        for name, values in zip(("mean", "std"), colours, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        return int(self.config.hidden_size)

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width."""
        return _grid(self.clip, self.config)

    def prepare(self, device: str | torch.device, compute: torch.dtype) -> VJEPA2Encoder:
        """As for every `FrozenEncoder`; the angles of the positions are computed in `compute` too, as theirs are."""
        self.to(device)
        self.model.to(compute)
        return self

    def with_random_weights(self, seed: int = 0) -> VJEPA2Encoder:
        """Another one of this shape, on the CPU, with weights drawn as transformers draws them."""
        model = copy.deepcopy(self.model).to("cpu", torch.float32)
        _draw_weights(model, float(self.config.initializer_range), draws.generator(seed, "weights"))
        mean, std = (tuple(values.flatten().tolist()) for values in (self.mean, self.std))
        return VJEPA2Encoder(model, self.clip, (mean, std))

    @torch.no_grad()
    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """As for every `FrozenEncoder`: the last block's output with the final norm, the others' as they are."""
        check_clips(video_btchw, indices, self.clip, self.depth)
        read = partial(self._read, indices=indices)
        return clip_by_clip(read, video_btchw) if self.mean.device.type == "cpu" else read(video_btchw)

    @torch.no_grad()
    def queries_and_keys(self, block: int, x_bnd: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `[B, heads, N, D / heads]` of a block; see `AttentionEncoder`."""
        layer = self.model.layer[block - 1]
        y_bnd = layer.norm1(x_bnd.to(self.mean.device, layer.norm1.weight.dtype))
        attention, place = layer.attention, layer.attention.get_position_ids(y_bnd)
        query, key = (
            attention.apply_rotary_embeddings(
                part(y_bnd).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2), place
            )
            for part in (attention.query, attention.key)
        )
        return query, key

    def _read(self, video_btchw: Tensor, indices: Sequence[int]) -> list[Tensor]:
        x_bnd = self.model.embeddings(self._normalized(video_btchw))
        found = {0: x_bnd} if 0 in indices else {}
        for number, block in enumerate(self.model.layer[: max(indices)], start=1):
            x_bnd = block(x_bnd, None)[0]
            if number in indices:
                found[number] = x_bnd
        if self.depth in found:
            found[self.depth] = self.model.layernorm(x_bnd)
        return [found[depth] for depth in indices]

    def _normalized(self, video_btchw: Tensor) -> Tensor:
        video = video_btchw.to(self.mean.device)
        video = video.float() / 255 if video.dtype == torch.uint8 else video.float()
        return (video - self.mean) / self.std


def open_vjepa2(checkpoint: Checkpoint, clip: ClipShape | None) -> VJEPA2Encoder:
    """The encoder in a VJEPA2Model or VJEPA2ForVideoClassification, its predictor, pooler and classifier left out.

    Raises LayerlockError for settings that make no encoder and for the first tensor that is off.
    """
    where = str(checkpoint.config)
    config = _build(checkpoint.fields, where).config
    own = ClipShape(frames=config.frames_per_clip, stride=1, fps=FPS, size=config.crop_size)
    shape = restrided(own, clip, where, any_frames=True)
    colours = checkpoint.colours((IMAGENET_MEAN, IMAGENET_STD))
    return vjepa2_encoder(checkpoint.fields, lambda: _encoder_weights(checkpoint.weights()), shape, where, colours)


def vjepa2_encoder(
    fields: dict[str, Any],
    weights: Callable[[], dict[str, Tensor]],
    clip: ClipShape,
    where: str,
    colours: tuple[Colour, Colour],
) -> VJEPA2Encoder:
    """An encoder of the `fields` of a VJEPA2Config, for `clip`; `weights` reads the state dict of its encoder.

    Raises LayerlockError naming `where` for settings and clips, before any weights are read, and for tensors that are
    off.
    """
    model = _build(fields, where)
    if problems := clip.problems():
        raise LayerlockError(f"{where}: {problems[0]}")
    try:
        _grid(clip, model.config)
    except ValueError as error:
        raise LayerlockError(f"{where}: {error}") from None
    found = weights()
    check_weights(where, found, model.state_dict())
    model.load_state_dict({name: value.float() for name, value in found.items()}, assign=True)
    return VJEPA2Encoder(model, clip, colours)


def _build(fields: dict[str, Any], where: str) -> Any:
    """Their encoder without values. Its class is not public, so it is taken out of a whole model."""
    try:
        from transformers import VJEPA2Config, VJEPA2Model
    except ImportError:
        raise LayerlockError(f"{where}: V-JEPA 2 needs transformers ({EXTRA})") from None
    try:
        config = VJEPA2Config.from_dict(fields | {"attn_implementation": "sdpa"})
        with torch.device("meta"):
            model = VJEPA2Model(config).encoder
    except Exception as error:  # of a kind of its own for each field
        raise LayerlockError(f"{where}: not the settings of a V-JEPA 2 ({one_line(error)})") from None
    if config.in_chans != 3:
        raise LayerlockError(f"{where}: in_chans {config.in_chans}, where clips have 3")
    return model


def _encoder_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name.removeprefix("vjepa2.") for name in weights}
    return {
        short.removeprefix("encoder."): weights[name] for name, short in names.items() if not short.startswith(_HEADS)
    }


def _grid(clip: ClipShape, config: Any) -> Grid:
    side = config.patch_size
    return token_grid(clip.frames, clip.size, clip.size, (config.tubelet_size, side, side))


def _draw_weights(model: nn.Module, deviation: float, generator: torch.Generator) -> None:
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(part.weight, std=deviation, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
