"""Checkpoints in their authors' own files: VideoMAE (`.pth` of MCG-NJU), V-JEPA and V-JEPA 2 (`.pt`, `.pth.tar`).

They are pickles, read by torch's `weights_only` loader, which builds tensors and plain containers and runs no code.
Their layouts name timm's parts (`blocks.0.attn.qkv.weight`); which model it is follows from the names, its shape from
the tensors. What no tensor tells (heads, clips) is as published.
"""

from __future__ import annotations

import argparse
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from layerlock.encoders.protocol import FrozenEncoder
from layerlock.encoders.shapes import restrided
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.encoders.vjepa2 import FPS, vjepa2_encoder
from layerlock.errors import LayerlockError, one_line
from layerlock.model.encoder import ClipShape, Encoder, check_weights
from layerlock.model.vit import ViT, ViTConfig

ENDINGS = (".pth", ".pt", ".pth.tar", ".bin")
"""of files that are taken for checkpoints of torch"""

_HOLDERS = ("target_encoder", "encoder", "model", "module", "state_dict")
"""keys of a checkpoint under which the weights of a model stand; V-JEPA is read from its teacher, as its authors do"""
_WRAPPERS = ("module.", "backbone.", "encoder.")
"""first parts of names that say nothing of the layer"""
_HEADS = ("decoder.", "encoder_to_decoder.", "mask_token", "fc_norm.", "head.", "predictor.")
_HEADS_OF = {1280: 16, 1408: 16}
"""attention heads of published widths that have others than one for each 64 channels"""
_VJEPA2_HEADS = {1280: 16, 1408: 22}
_STRIDE = 4
"""source frames between those of a clip: VideoMAE and V-JEPA on Kinetics"""
_FRAMES, _SIZE = 16, 224


def is_authors_file(name: str) -> bool:
    """Whether a name is that of a checkpoint file of torch."""
    return name.lower().endswith(ENDINGS) and not Path(name).is_dir()


def open_authors(path: str, clip: ClipShape | None) -> FrozenEncoder:
    """The encoder in an authors' file: VideoMAE (pre-trained or fine-tuned), V-JEPA, V-JEPA 2.

    Clips are 16 frames of 224 x 224 at stride 4 (V-JEPA 2: 64 of 256 x 256, 4 a second) where `clip` says nothing else;
    VideoMAE and V-JEPA 2 take any that their patches divide. Raises LayerlockError for a file that cannot be read
    without running code, for other models, and for the first tensor that is missing, surplus or of another shape.
    """
    weights = _layers(read_authors(path), path)
    if "blocks.0.attn.qkv.bias" in weights and "pos_embed" not in weights:
        return _open_vjepa2(path, clip, weights)
    return _open_vit(path, _config(weights, path), clip, weights)


def read_authors(path: str | Path) -> Any:
    """What a checkpoint of torch holds, read without running any of its code. Raises LayerlockError."""
    held: list[Any] = [argparse.Namespace]  # VideoMAE keeps its command line beside the weights
    try:
        with torch.serialization.safe_globals(held):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise LayerlockError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except pickle.UnpicklingError as error:
        reason = (
            str(error).rpartition("WeightsUnpickler error: ")[2].partition(". ")[0]
        )  # the rest: how to run the code
        raise LayerlockError(
            f"{path}: cannot be read without running code from it, which is refused ({' '.join(reason.split())})"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, BadZipFile) as error:
        raise LayerlockError(f"{path}: not a readable checkpoint of torch ({one_line(error)})") from None


def _layers(found: Any, path: str) -> dict[str, Tensor]:
    """The tensors of the encoder by timm's names. Raises LayerlockError where there are none."""
    for holder in _HOLDERS:
        if isinstance(found, Mapping) and isinstance(found.get(holder), Mapping):
            found = found[holder]
    names = found if isinstance(found, Mapping) else {}
    weights = {_plain(name): value for name, value in names.items() if isinstance(name, str)}
    weights = {
        name: value for name, value in weights.items() if isinstance(value, Tensor) and not name.startswith(_HEADS)
    }
    for name in ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"):
        if name not in weights:
            raise LayerlockError(f"{path}: no tensor {name}; not a VideoMAE, V-JEPA or V-JEPA 2 as its authors save it")
    kernel, hidden = weights["patch_embed.proj.weight"], weights["blocks.0.mlp.fc1.weight"]
    if kernel.ndim != 5 or kernel.shape[1] != 3 or kernel.shape[3] != kernel.shape[4] or hidden.ndim != 2:
        raise LayerlockError(
            f"{path}: patch_embed.proj.weight is {list(kernel.shape)}, wanted [D, 3, t, side, side] of a video model"
        )
    return weights


def _plain(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _shape(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Width, depth, hidden width and patch, as the tensors have them."""
    width, _, *patch = weights["patch_embed.proj.weight"].shape
    numbers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    mlp = weights["blocks.0.mlp.fc1.weight"].shape[0]
    return {"width": width, "depth": len(numbers), "mlp": mlp, "patch": tuple(patch)}


def _heads(width: int, path: str, published: Mapping[int, int] = _HEADS_OF) -> int:
    """Attention heads, which no tensor tells: as published at that width, else one for each 64 channels."""
    if width not in published and width % 64:
        raise LayerlockError(
            f"{path}: no published model is {width} wide, so that its number of heads is not known; "
            "save it as transformers does and open it as hf:FOLDER"
        )
    return published.get(width, width // 64)


def _config(weights: Mapping[str, Tensor], path: str) -> ViTConfig:
    """VideoMAE's backbone, or V-JEPA's where there is a table of positions."""
    shape, jepa = _shape(weights), "pos_embed" in weights
    return ViTConfig(
        **shape,
        heads=_heads(shape["width"], path),
        position="learned" if jepa else "sincos-1d",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        gelu="exact",
        key_bias=jepa,
        final_norm="norm.weight" in weights,
    )


def _open_vit(path: str, model: ViTConfig, clip: ClipShape | None, weights: dict[str, Tensor]) -> Encoder:
    if problems := model.problems():
        raise LayerlockError(f"{path}: {problems[0]}")
    shape = _clip(path, model, clip, weights)
    try:
        encoder = Encoder(model, shape)
    except ValueError as error:
        raise LayerlockError(f"{path}: {error}") from None
    check_weights(path, weights, _theirs(model, encoder.vit))
    encoder.vit.load_state_dict(_ours(model, weights))
    return encoder


def _clip(path: str, model: ViTConfig, clip: ClipShape | None, weights: Mapping[str, Tensor]) -> ClipShape:
    """The clips asked for; V-JEPA's have as many tokens as its table of positions."""
    table = weights.get("pos_embed")
    if table is None:
        shape = clip or ClipShape(frames=_FRAMES, stride=_STRIDE, size=_SIZE)
        if problems := shape.problems():
            raise LayerlockError(f"{path}: {problems[0]}")
        return shape
    times, side = _FRAMES // model.patch[0], model.patch[1]
    rows = math.isqrt(table.shape[-2] // times) if table.ndim == 3 else 0
    if not rows or table.shape != (1, times * rows * rows, model.width):
        raise LayerlockError(
            f"{path}: pos_embed is {list(table.shape)}, wanted [1, {times} x rows x rows, {model.width}]"
        )
    return restrided(ClipShape(frames=_FRAMES, stride=_STRIDE, size=rows * side), clip, path)


def _ours(model: ViTConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of our ViT; values of our patches are in the order t, h, w, 3."""
    found = {
        "embed.weight": weights["patch_embed.proj.weight"].permute(0, 2, 3, 4, 1).flatten(1),
        "embed.bias": weights["patch_embed.proj.bias"],
    }
    if "pos_embed" in weights:
        found["position"] = weights["pos_embed"][0]
    for i in range(model.depth):
        found |= {
            f"blocks.{i}.{ours}.{kind}": weights[f"blocks.{i}.{theirs}.{kind}"]
            for ours, theirs in _PARTS.items()
            for kind in ("weight", "bias")
            if f"blocks.{i}.{theirs}.{kind}" in weights
        }
        if not model.key_bias:
            found[f"blocks.{i}.qkv.bias"] = torch.cat([weights[f"blocks.{i}.attn.{part}_bias"] for part in "qv"])
    if model.final_norm:
        found |= {f"norm.{kind}": weights[f"norm.{kind}"] for kind in ("weight", "bias")}
    return found


_PARTS = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
"""our parts of a block and timm's"""


def _theirs(model: ViTConfig, vit: ViT) -> dict[str, Tensor]:
    """Every tensor that a file of theirs has, as one of its shape."""
    own = vit.state_dict()
    found = {
        "patch_embed.proj.weight": torch.empty(model.width, 3, *model.patch, device="meta"),
        "patch_embed.proj.bias": own["embed.bias"],
    }
    if "position" in own:
        found["pos_embed"] = own["position"][None]
    for i in range(model.depth):
        for ours, theirs in _PARTS.items():
            for kind in ("weight", "bias"):
                if kind == "weight" or ours != "qkv" or model.key_bias:
                    found[f"blocks.{i}.{theirs}.{kind}"] = own[f"blocks.{i}.{ours}.{kind}"]
        if not model.key_bias:
            found |= {f"blocks.{i}.attn.{part}_bias": torch.empty(model.width, device="meta") for part in "qv"}
    if model.final_norm:
        found |= {f"norm.{kind}": own[f"norm.{kind}"] for kind in ("weight", "bias")}
    return found


def _open_vjepa2(path: str, clip: ClipShape | None, weights: dict[str, Tensor]) -> FrozenEncoder:
    """V-JEPA 2 in transformers' blocks, under transformers' names."""
    shape, asked = _shape(weights), clip or ClipShape(frames=64, stride=1, fps=FPS, size=256)
    fields = {
        "hidden_size": shape["width"],
        "num_hidden_layers": shape["depth"],
        "num_attention_heads": _heads(shape["width"], path, _VJEPA2_HEADS),
        "mlp_ratio": shape["mlp"] / shape["width"],
        "tubelet_size": shape["patch"][0],
        "patch_size": shape["patch"][1],
        "frames_per_clip": asked.frames,
        "crop_size": asked.size,
    }
    theirs: dict[str, Tensor] = {}
    for name, value in weights.items():
        theirs |= _of_transformers(name, value)
    return vjepa2_encoder(fields, lambda: theirs, asked, path, (IMAGENET_MEAN, IMAGENET_STD))


def _of_transformers(name: str, value: Tensor) -> dict[str, Tensor]:
    """A tensor under transformers' names, queries, keys and values apart."""
    if name.startswith("patch_embed."):
        return {name.replace("patch_embed.", "embeddings.patch_embeddings.", 1): value}
    if name.startswith("norm."):
        return {name.replace("norm.", "layernorm.", 1): value}
    name = name.replace("blocks.", "layer.", 1).replace(".attn.", ".attention.")
    if ".qkv." in name:
        parts = zip(("query", "key", "value"), value.chunk(3), strict=False)
        return {name.replace(".qkv.", f".{part}."): each for part, each in parts}
    return {name: value}
