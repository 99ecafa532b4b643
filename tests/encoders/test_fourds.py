"""4DS checkpoints: the features of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import FIXTURES
from torch.nn import functional as F

from layerlock.encoders.fourds import from_4ds, load_4ds
from layerlock.errors import LayerlockError
from layerlock.model.patches import patchify
from layerlock.model.vit import ViT

CHECKPOINT = FIXTURES / "4ds_checkpoint.npz"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    with np.load(CHECKPOINT) as archive:
        return dict(archive)


def worst(vit: ViT) -> float:
    """The largest difference to the reference over the features after 0 to 3 blocks."""
    with np.load(FIXTURES / "4ds_features.npz") as reference:
        video = torch.from_numpy(reference["video_bthwc"]).permute(0, 1, 4, 2, 3)
        wanted = [torch.from_numpy(reference[f"features_after_{depth}_blocks"]) for depth in range(4)]
    with torch.no_grad():
        found = vit.intermediates(patchify(video, vit.config.patch), range(4))
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


def test_features_are_the_references_to_1e_4() -> None:
    assert worst(load_4ds(CHECKPOINT)) < 1e-4


def test_the_exact_gelu_would_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    exact: Callable[..., torch.Tensor] = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate: exact(x))
    assert worst(load_4ds(CHECKPOINT)) > 1e-4


def test_shape_is_read_from_the_arrays(arrays: dict[str, np.ndarray]) -> None:
    vit = from_4ds(arrays)
    config = vit.config
    assert (config.width, config.depth, config.mlp, config.heads) == (64, 4, 256, 4)
    assert (config.patch, config.position, vit.grid) == ((2, 16, 16), "learned", (4, 2, 2))


@pytest.mark.parametrize(
    "key",
    [
        "params/encoder/patch_embedding/Conv_0/bias",
        "params/encoder/posenc/embeddings",
        "params/processor/layers_0/attention/query/kernel",
        "params/processor/layers_2/mlp_norm/scale",
        "params/processor/layers_3/attention/out/bias",
    ],
)
def test_a_missing_key_is_named(arrays: dict[str, np.ndarray], key: str) -> None:
    del arrays[key]
    with pytest.raises(LayerlockError, match="layers_0" if "query" in key else key):
        from_4ds(arrays)


def test_a_surplus_key_is_named(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/processor/final_norm/scale"] = np.zeros(64, np.float32)
    with pytest.raises(LayerlockError, match="final_norm/scale"):
        from_4ds(arrays)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("params/processor/layers_1/mlp/dense_in/kernel", (64, 255)),
        ("params/encoder/posenc/embeddings", (16, 64)),
        ("params/encoder/patch_embedding/Conv_0/kernel", (1536, 64)),
        ("params/encoder/patch_embedding/Conv_0/bias", (63,)),
    ],
)
def test_a_wrong_shape_is_an_error_for_people(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...]) -> None:
    arrays[key] = np.zeros(shape, np.float32)
    with pytest.raises(LayerlockError, match="wanted"):
        from_4ds(arrays)


def test_files_that_are_no_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match=r"gone\.npz"):
        load_4ds(tmp_path / "gone.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 rubbish")
    with pytest.raises(LayerlockError, match=r"bad\.npz"):
        load_4ds(tmp_path / "bad.npz")
