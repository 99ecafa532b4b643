"""Weights to and from transformers' VideoMAE, as plain state dicts; transformers itself is not needed.

`fields` is a VideoMAEConfig as a mapping: `config.to_dict()`, or what a checkpoint's config.json holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.model.encoder import check_weights
from layerlock.model.patches import Grid, token_grid
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import GELU, ViTConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GELUS: dict[str, GELU] = {"gelu": "exact", "gelu_pytorch_tanh": "tanh"}
_OLD_NAMES = {"attention.q_bias": "attention.query.bias", "attention.v_bias": "attention.value.bias"}
_BACKBONE = "videomae."
_HEADS = ("decoder.", "encoder_to_decoder.", "mask_token", "fc_norm.", "classifier.")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_COUNTS = {*_SIZES, *(f"decoder_{name}" for name in _SIZES), "tubelet_size", "num_frames"}
_DECODER_NORM_EPS = 1e-5  # transformers leaves the decoder's last norm at PyTorch's default


class Weights(NamedTuple):
    """State dicts of our parts: a ViT, a SeparateDecoder, the Dense from the decoder's width to pixels."""

    vit: dict[str, Tensor]
    decoder: dict[str, Tensor]
    head: dict[str, Tensor]


# --- shapes ----------------------------------------------------------------------------------------------------------


def vit_config(fields: Mapping[str, Any]) -> ViTConfig:
    """The backbone that a VideoMAEConfig describes. Raises LayerlockError where ours has no such thing."""
    _check_supported(fields)
    return ViTConfig(
        width=_field(fields, "hidden_size"),
        depth=_field(fields, "num_hidden_layers"),
        mlp=_field(fields, "intermediate_size"),
        heads=_field(fields, "num_attention_heads"),
        patch=(_field(fields, "tubelet_size"), *_pair(fields, "patch_size")),
        position="sincos-1d",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        gelu=_GELUS[_field(fields, "hidden_act")],
        norm_eps=_field(fields, "layer_norm_eps"),
        key_bias=False,
        final_norm=not _field(fields, "use_mean_pooling"),
    )


def separate_decoding(fields: Mapping[str, Any]) -> SeparateDecoding:
    """The decoder that a VideoMAEConfig describes. Raises LayerlockError where ours has no such thing."""
    _check_supported(fields)
    return SeparateDecoding(
        width=_field(fields, "decoder_hidden_size"),
        depth=_field(fields, "decoder_num_hidden_layers"),
        heads=_field(fields, "decoder_num_attention_heads"),
        mlp=_field(fields, "decoder_intermediate_size"),
        position="sincos-1d",
        gelu=_GELUS[_field(fields, "hidden_act")],
        norm_eps=_field(fields, "layer_norm_eps"),
        final_norm_eps=_DECODER_NORM_EPS,
        key_bias=False,
        input_bias=False,
    )


def clip_grid(fields: Mapping[str, Any]) -> Grid:
    """Tokens along time, height and width of the clips that a VideoMAEConfig describes."""
    height, width = _pair(fields, "image_size")
    try:
        return token_grid(_field(fields, "num_frames"), height, width, vit_config(fields).patch)
    except ValueError as error:
        raise LayerlockError(f"VideoMAE config: {error}") from None


def fields_of(model: ViTConfig, decoding: SeparateDecoding, *, frames: int, size: int) -> dict[str, Any]:
    """What to make a VideoMAEConfig of: `VideoMAEConfig(**fields)`, for clips of `frames` x `size` x `size`.

    Raises LayerlockError naming the settings that no VideoMAE has.
    """
    fields = {
        "image_size": size,
        "num_frames": frames,
        "num_channels": 3,
        "tubelet_size": model.patch[0],
        "patch_size": model.patch[1],
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "intermediate_size": model.mlp,
        "hidden_act": next(theirs for theirs, ours in _GELUS.items() if ours == model.gelu),
        "layer_norm_eps": model.norm_eps,
        "qv_bias": True,
        "use_mean_pooling": not model.final_norm,
        "decoder_hidden_size": decoding.width,
        "decoder_num_hidden_layers": decoding.depth,
        "decoder_num_attention_heads": decoding.heads,
        "decoder_intermediate_size": decoding.mlp,
    }
    different = [
        f"{room}.{name} = {value!r} (VideoMAE: {asdict(theirs)[name]!r})"
        for room, ours, theirs in (
            ("model", model, vit_config(fields)),
            ("decoder", decoding, separate_decoding(fields)),
        )
        for name, value in asdict(ours).items()
        if value != asdict(theirs)[name]
    ]
    if different:
        raise LayerlockError(f"no VideoMAE has {', '.join(different)}")
    return fields


def _check_supported(fields: Mapping[str, Any]) -> None:
    for name in sorted(fields.keys() & _COUNTS):  # an encoder alone needs none of the decoder's
        if not isinstance(fields[name], int) or fields[name] < 1:
            raise LayerlockError(f"VideoMAE config: {name} is {fields[name]!r}, not a positive number")
    if _field(fields, "hidden_act") not in _GELUS:
        raise LayerlockError(f"VideoMAE config: hidden_act {fields['hidden_act']!r} is none of {', '.join(_GELUS)}")
    if _field(fields, "num_channels") != 3:
        raise LayerlockError(f"VideoMAE config: num_channels {fields['num_channels']}, where clips have 3")
    # older releases of transformers call it qkv_bias; keys have none under that name either
    if not fields.get("qv_bias", fields.get("qkv_bias", True)):
        raise LayerlockError("VideoMAE config: queries and values without biases, where ours have them")


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise LayerlockError(f"VideoMAE config: no field {name}; save the model with transformers' save_pretrained")
    return fields[name]


def _pair(fields: Mapping[str, Any], name: str) -> tuple[int, int]:
    """A size along height and width, which may be given as one number."""
    value = _field(fields, name)
    both = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(both) != 2 or not all(isinstance(length, int) and length > 0 for length in both):
        raise LayerlockError(f"VideoMAE config: {name} is {value!r}, not one or two positive numbers")
    return both[0], both[1]


# --- weights ---------------------------------------------------------------------------------------------------------


def vit_from_transformers(
    state: Mapping[str, Tensor], fields: Mapping[str, Any], where: str = "VideoMAE checkpoint"
) -> dict[str, Tensor]:
    """The state dict of our ViT from that of a VideoMAEModel, alone or in a VideoMAEForPreTraining or
    VideoMAEForVideoClassification; their decoder or classifier is left out.

    Raises LayerlockError naming the first tensor that is missing, surplus or of another shape than the config says.
    """
    theirs = {_current_name(name): value for name, value in state.items()}
    if not any(name.startswith(_BACKBONE) for name in theirs):
        theirs = {_BACKBONE + name: value for name, value in theirs.items()}
    theirs = {name: value for name, value in theirs.items() if not name.startswith(_HEADS)}
    pairs = _vit_pairs(vit_config(fields))
    check_weights(where, theirs, {name: pair.like for pair in pairs for name in pair.theirs})
    return {pair.ours: pair.join([theirs[name] for name in pair.theirs]) for pair in pairs}


def to_transformers(weights: Weights, fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a VideoMAEForPreTraining from ours, under the names of transformers 5.23.

    Raises LayerlockError naming the first tensor that is missing, surplus or of another shape than the config says.
    """
    theirs: dict[str, Tensor] = {}
    for name, ours, part in zip(Weights._fields, weights, _parts(fields), strict=True):
        check_weights(name, ours, {pair.ours: pair.join([pair.like] * len(pair.theirs)) for pair in part})
        for pair in part:
            theirs.update(zip(pair.theirs, pair.split(ours[pair.ours]), strict=True))
    return theirs


@dataclass(frozen=True)
class _Pair:
    """A tensor of ours, and theirs of one shape that make it up, stacked."""

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def like(self) -> Tensor:
        """A tensor of their shape, without values."""
        return torch.empty(self.shape, device="meta")

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Ours from theirs."""
        return torch.cat([self._flat(part) for part in parts])

    def split(self, whole: Tensor) -> list[Tensor]:
        """Theirs from ours."""
        return [self._unflat(part).clone() for part in whole.chunk(len(self.theirs))]

    def _flat(self, part: Tensor) -> Tensor:
        if len(self.shape) == 5:  # a convolution's [D, 3, t, h, w]; values of our patches are in the order t, h, w, 3
            return part.permute(0, 2, 3, 4, 1).flatten(1)
        return part.flatten(1) if len(self.shape) == 3 else part  # the mask token is [1, 1, D]

    def _unflat(self, part: Tensor) -> Tensor:
        if len(self.shape) == 5:
            d, channels, *patch = self.shape
            return part.view(d, *patch, channels).permute(0, 4, 1, 2, 3).contiguous()
        return part.view(self.shape)


def _parts(fields: Mapping[str, Any]) -> tuple[list[_Pair], list[_Pair], list[_Pair]]:
    """All pairs of the ViT, of the decoder and of the head."""
    model, decoding = vit_config(fields), separate_decoding(fields)
    decoder = [
        _Pair("embed.weight", ("encoder_to_decoder.weight",), (decoding.width, model.width)),
        _Pair("token", ("mask_token",), (1, 1, decoding.width)),
        *_blocks("decoder.decoder_layers", decoding.block),
        *_layer("norm", "decoder.norm", (decoding.width,)),
    ]
    head = [
        _Pair(name, (f"decoder.head.{name}",), shape)
        for name, shape in (("weight", (model.patch_values, decoding.width)), ("bias", (model.patch_values,)))
    ]
    return _vit_pairs(model), decoder, head


def _vit_pairs(model: ViTConfig) -> list[_Pair]:
    return [
        *_layer("embed", f"{_BACKBONE}embeddings.patch_embeddings.projection", (model.width, 3, *model.patch)),
        *_blocks(f"{_BACKBONE}encoder.layer", model),
        *(_layer("norm", f"{_BACKBONE}layernorm", (model.width,)) if model.final_norm else ()),
    ]


def _blocks(theirs: str, config: ViTConfig) -> Iterator[_Pair]:
    d, m = config.width, config.mlp
    for i in range(config.depth):
        block, layer = f"blocks.{i}", f"{theirs}.{i}"
        attention = f"{layer}.attention.attention"
        yield from _layer(f"{block}.norm1", f"{layer}.layernorm_before", (d,))
        query, key, value = (f"{attention}.{part}" for part in ("query", "key", "value"))
        yield _Pair(f"{block}.qkv.weight", (f"{query}.weight", f"{key}.weight", f"{value}.weight"), (d, d))
        yield _Pair(f"{block}.qkv.bias", (f"{query}.bias", f"{value}.bias"), (d,))
        yield from _layer(f"{block}.proj", f"{layer}.attention.output.dense", (d, d))
        yield from _layer(f"{block}.norm2", f"{layer}.layernorm_after", (d,))
        yield from _layer(f"{block}.fc1", f"{layer}.intermediate.dense", (m, d))
        yield from _layer(f"{block}.fc2", f"{layer}.output.dense", (d, m))


def _layer(ours: str, theirs: str, shape: tuple[int, ...]) -> Iterator[_Pair]:
    yield _Pair(f"{ours}.weight", (f"{theirs}.weight",), shape)
    yield _Pair(f"{ours}.bias", (f"{theirs}.bias",), shape[:1])


def _current_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name
