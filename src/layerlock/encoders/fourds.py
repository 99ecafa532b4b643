"""Published 4DS checkpoints (google-deepmind/representations4d): flat .npz key layout to our ViT, as an encoder."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from layerlock.encoders.shapes import restrided
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.patches import Grid
from layerlock.model.vit import ViT, ViTConfig

_EMBED = "params/encoder/patch_embedding/Conv_0/"
_POSITION = "params/encoder/posenc/embeddings"


def _block_keys(i: int) -> dict[str, tuple[str, ...]]:
    """Our dense layers and norms of block `i`, and theirs that make them up."""
    base = f"params/processor/layers_{i}/"
    return {
        f"blocks.{i}.norm1": (f"{base}attention_norm",),
        f"blocks.{i}.qkv": tuple(f"{base}attention/{part}" for part in ("query", "key", "value")),
        f"blocks.{i}.proj": (f"{base}attention/out",),
        f"blocks.{i}.norm2": (f"{base}mlp_norm",),
        f"blocks.{i}.fc1": (f"{base}mlp/dense_in",),
        f"blocks.{i}.fc2": (f"{base}mlp/dense_out",),
    }


def _matrix(ours: str, kernel: np.ndarray) -> np.ndarray:
    """A kernel as `[out, in]`: q, k, v are (in, heads, head_dim), the output projection is (heads, head_dim, out)."""
    flat = kernel.reshape(-1, kernel.shape[-1]) if ours.endswith("proj") else kernel.reshape(kernel.shape[0], -1)
    return flat.T


def open_4ds(path: str, clip: ClipShape | None) -> Encoder:
    """The encoder of a 4DS `.npz`, for clips of as many frames and pixels as it has positions, at stride 2.

    Raises LayerlockError for a file that is no such checkpoint, naming the first key that is off.
    """
    vit = load_4ds(path)
    frames, height, width = (tokens * side for tokens, side in zip(vit.grid, vit.config.patch, strict=True))
    if height != width:
        raise LayerlockError(f"{path}: made for frames of {height} x {width} pixels; only square ones can be read")
    encoder = Encoder(vit.config, restrided(ClipShape(frames=frames, stride=2, size=height), clip, path))
    encoder.vit.load_state_dict(vit.state_dict(), assign=True)
    return encoder


def load_4ds(path: str | Path) -> ViT:
    """A ViT with learned positions and the weights of a 4DS checkpoint.

    Raises LayerlockError naming the first key that is off.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, TypeError, ValueError, BadZipFile, zlib.error) as error:
        raise LayerlockError(f"{path}: not a readable .npz file ({error})") from None
    return from_4ds(arrays, str(path))


def from_4ds(arrays: Mapping[str, np.ndarray], where: str = "4ds checkpoint") -> ViT:
    """As `load_4ds`, from arrays by key."""
    config, grid = _shape(arrays, where)
    _check(arrays, _wanted(config, grid), where)
    weights = {
        "embed.weight": arrays[_EMBED + "kernel"].reshape(-1, config.width).T,
        "embed.bias": arrays[_EMBED + "bias"],
        "position": arrays[_POSITION].reshape(-1, config.width),
    }
    for i in range(config.depth):
        for ours, theirs in _block_keys(i).items():
            if "norm" in ours:
                weights[f"{ours}.weight"], weights[f"{ours}.bias"] = (
                    arrays[f"{theirs[0]}/scale"],
                    arrays[f"{theirs[0]}/bias"],
                )
            else:
                weights[f"{ours}.weight"] = np.concatenate([_matrix(ours, arrays[f"{key}/kernel"]) for key in theirs])
                weights[f"{ours}.bias"] = np.concatenate([arrays[f"{key}/bias"].reshape(-1) for key in theirs])
    vit = ViT(config, grid)
    vit.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()})
    return vit


def _shape(arrays: Mapping[str, np.ndarray], where: str) -> tuple[ViTConfig, Grid]:
    """Backbone and token grid, read off the arrays that tell them."""

    def sides(key: str, wanted: str) -> tuple[int, ...]:
        if key not in arrays:
            raise LayerlockError(f"{where}: no key {key}")
        found = arrays[key].shape
        if len(found) != len(wanted.split(", ")) or 0 in found:
            raise LayerlockError(f"{where}: {key} is {found}, wanted ({wanted})")
        return found

    t, h, w, _, width = sides(_EMBED + "kernel", "t, h, w, 3, D")
    frames, rows, columns, _ = sides(_POSITION, "t, h, w, D")
    _, heads, _ = sides("params/processor/layers_0/attention/query/kernel", "D, heads, D / heads")
    _, mlp = sides("params/processor/layers_0/mlp/dense_in/kernel", "D, MLP")
    depth = len({key.split("/")[2] for key in arrays if key.startswith("params/processor/layers_")})
    config = ViTConfig(width=width, depth=depth, mlp=mlp, heads=heads, patch=(t, h, w), position="learned")
    if config.problems():
        raise LayerlockError(f"{where}: {config.problems()[0]}")
    return config, (frames, rows, columns)


def _wanted(config: ViTConfig, grid: Grid) -> dict[str, tuple[int, ...]]:
    """Every key of a checkpoint and its shape."""
    d, heads = config.width, (config.heads, config.width // config.heads)
    wanted: dict[str, tuple[int, ...]] = {
        _EMBED + "kernel": (*config.patch, 3, d),
        _EMBED + "bias": (d,),
        _POSITION: (*grid, d),
    }
    for i in range(config.depth):
        base = f"params/processor/layers_{i}/"
        for norm in ("attention_norm", "mlp_norm"):
            wanted |= {f"{base}{norm}/scale": (d,), f"{base}{norm}/bias": (d,)}
        for part in ("query", "key", "value"):
            wanted |= {f"{base}attention/{part}/kernel": (d, *heads), f"{base}attention/{part}/bias": heads}
        wanted |= {f"{base}attention/out/kernel": (*heads, d), f"{base}attention/out/bias": (d,)}
        wanted |= {f"{base}mlp/dense_in/kernel": (d, config.mlp), f"{base}mlp/dense_in/bias": (config.mlp,)}
        wanted |= {f"{base}mlp/dense_out/kernel": (config.mlp, d), f"{base}mlp/dense_out/bias": (d,)}
    return wanted


def _check(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    for key, shape in wanted.items():
        if key not in arrays:
            raise LayerlockError(f"{where}: no key {key}")
        if arrays[key].shape != shape:
            raise LayerlockError(f"{where}: {key} is {arrays[key].shape}, wanted {shape}")
        if arrays[key].dtype.kind != "f":
            raise LayerlockError(f"{where}: {key} is {arrays[key].dtype}, wanted floating point")
    surplus = sorted(set(arrays) - set(wanted))
    if surplus:
        raise LayerlockError(f"{where}: unknown key {surplus[0]}")
