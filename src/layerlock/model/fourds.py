"""Published 4DS checkpoints (google-deepmind/representations4d): flat .npz key layout to our ViT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from layerlock.errors import LayerlockError
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


def load_4ds(path: str | Path) -> ViT:
    """A ViT with learned positions and the weights of a 4DS checkpoint.

    Raises LayerlockError naming the first key that is off.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return from_4ds({name: archive[name] for name in archive.files}, str(path))
    except (OSError, ValueError, BadZipFile) as error:
        raise LayerlockError(f"{path}: not a readable .npz file ({error})") from None


def from_4ds(arrays: Mapping[str, np.ndarray], where: str = "4ds checkpoint") -> ViT:
    """As `load_4ds`, from arrays by key."""
    left = dict(arrays)

    def take(key: str) -> np.ndarray:
        if key not in left:
            raise LayerlockError(f"{where}: no key {key}")
        return left.pop(key)

    kernel, position = take(_EMBED + "kernel"), take(_POSITION)
    if kernel.ndim != 5 or position.ndim != 4:
        raise LayerlockError(
            f"{where}: patch kernel {kernel.shape} and positions {position.shape}, "
            "wanted (t, h, w, 3, D) and (t, h, w, D)"
        )
    depth = len({key.split("/")[2] for key in arrays if key.startswith("params/processor/layers_")})
    query = arrays.get("params/processor/layers_0/attention/query/kernel")
    dense = arrays.get("params/processor/layers_0/mlp/dense_in/kernel")
    if query is None or dense is None:
        raise LayerlockError(f"{where}: no blocks (params/processor/layers_0/...)")
    config = ViTConfig(
        width=kernel.shape[-1],
        depth=depth,
        mlp=dense.shape[-1],
        heads=query.shape[1],
        patch=(kernel.shape[0], kernel.shape[1], kernel.shape[2]),
        position="learned",
    )
    weights = {
        "embed.weight": kernel.reshape(-1, kernel.shape[-1]).T,
        "embed.bias": take(_EMBED + "bias"),
        "position": position.reshape(-1, position.shape[-1]),
    }
    for i in range(depth):
        for ours, theirs in _block_keys(i).items():
            if "norm" in ours:
                weights[f"{ours}.weight"], weights[f"{ours}.bias"] = (
                    take(f"{theirs[0]}/scale"),
                    take(f"{theirs[0]}/bias"),
                )
            else:
                weights[f"{ours}.weight"] = np.concatenate([_matrix(ours, take(f"{key}/kernel")) for key in theirs])
                weights[f"{ours}.bias"] = np.concatenate([take(f"{key}/bias").reshape(-1) for key in theirs])
    if left:
        raise LayerlockError(f"{where}: unknown key {sorted(left)[0]}")
    vit = ViT(config, (position.shape[0], position.shape[1], position.shape[2]))
    vit.load_state_dict(_checked(where, weights, vit))
    return vit


def _checked(where: str, weights: dict[str, np.ndarray], vit: ViT) -> dict[str, Tensor]:
    for name, value in vit.state_dict().items():
        if weights[name].shape != tuple(value.shape):
            raise LayerlockError(f"{where}: {name} is {weights[name].shape}, wanted {tuple(value.shape)}")
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in weights.items()}
