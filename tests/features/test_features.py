from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FIXTURES, MODEL

import layerlock
from layerlock.data import ClipConfig, Views, collate, crop_and_flip, open_source
from layerlock.encoders import open_encoder
from layerlock.errors import LayerlockError
from layerlock.features.clips import plain_clip
from layerlock.features.embed import embed_source
from layerlock.features.whitening import whitening
from layerlock.model.encoder import ClipShape, Encoder

sys.path.append(str(Path(__file__).parent.parent / "data"))
from video_files import write_video

CLIP = ClipConfig(frames=8, stride=1, size=24, resize=239 / 224, flip=False)
"""as evaluation takes clips"""


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "videos"
    place.mkdir()
    for number in range(3):
        write_video(place / f"{number}.mp4", frames=10 + 7 * number)
    (place / "bad.mp4").write_bytes(b"no video")
    return place


def test_a_vector_a_video_is_the_mean_feature_of_its_middle_clip(
    encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    found = layerlock.embed(encoder, folder, out=tmp_path / "found.npz", depth=3, whiten=False, batch=2, workers=1)
    assert [Path(name).name for name in found.files] == ["0.mp4", "1.mp4", "2.mp4"]
    assert [Path(path).name for path, _ in found.rejected] == ["bad.mp4"]
    source = open_source(str(folder), CLIP, seed=0, workers=1)
    for number in range(3):
        video = crop_and_flip(collate([source.view(number)], CLIP.size))
        np.testing.assert_allclose(found.features[number], encoder(video, 3)[0].mean(0), atol=1e-5)
    with np.load(tmp_path / "found.npz") as written:
        np.testing.assert_array_equal(written["features"], found.features)
        assert tuple(written["files"]) == found.files


def test_whatever_can_be_opened_by_name_embeds(folder: Path) -> None:
    name = f"4ds:{FIXTURES / '4ds_checkpoint.npz'}"
    found = layerlock.embed(name, folder, depth=2, whiten=False, batch=2, workers=1, device="cpu")
    encoder = open_encoder(name)
    source = open_source(str(folder), plain_clip(encoder.clip), seed=0, workers=1)
    video = crop_and_flip(collate([source.view(1)], encoder.clip.size))
    wanted = encoder.forward_intermediates(video, [2])[0][0].mean(0)
    np.testing.assert_allclose(found.features[1], wanted, atol=1e-5)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    layerlock.synth(tmp_path / "world", videos=13, size=24, frames=10, workers=1)
    return tmp_path / "world"


def test_vectors_are_whitened_and_later_ones_as_those_before_were(
    encoder: Encoder, world: Path, tmp_path: Path
) -> None:
    plain = layerlock.embed(encoder, world, whiten=False, workers=0).features
    found = layerlock.embed(encoder, world, out=tmp_path / "before.npz", workers=0)
    np.testing.assert_allclose(
        found.features, whitening(torch.from_numpy(plain)).apply(torch.from_numpy(plain)), atol=1e-4
    )
    for path in sorted(world.rglob("*.mp4"))[:4]:
        path.unlink()
    later = layerlock.embed(encoder, world, whiten=tmp_path / "before.npz", out=tmp_path / "later.npz", workers=0)
    np.testing.assert_allclose(later.features, found.features[4:], atol=1e-5)
    with np.load(tmp_path / "before.npz") as before, np.load(tmp_path / "later.npz") as after:
        np.testing.assert_array_equal(before["map"], after["map"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 2}, "another depth: 5, here 2"),
        ({"encoder": Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=9)}, "another encoder"),
    ],
)
def test_vectors_of_another_kind_are_not_whitened_alike(
    encoder: Encoder, world: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    layerlock.embed(encoder, world, out=tmp_path / "before.npz", workers=0)
    with pytest.raises(LayerlockError, match=message):
        layerlock.embed(
            changes.get("encoder", encoder),
            world,
            depth=changes.get("depth"),
            whiten=tmp_path / "before.npz",
            workers=0,
        )


def test_what_cannot_be_whitened_is_an_error(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    layerlock.embed(encoder, world, out=tmp_path / "plain.npz", whiten=False, workers=0)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "half.npz").write_bytes((tmp_path / "plain.npz").read_bytes()[:200])
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "array.npy", np.ones(3))
    for none in map(tmp_path.joinpath, ("plain.npz", "bad.mp4", "nowhere.npz", "half.npz", "empty.npz", "array.npy")):
        with pytest.raises(LayerlockError, match="holds no whitening"):
            layerlock.embed(encoder, world, whiten=none, workers=0)
    for path in sorted(world.rglob("*.mp4"))[1:]:
        path.unlink()
    with pytest.raises(LayerlockError, match="whiten: 1 videos cannot be whitened"):
        layerlock.embed(encoder, world, whiten=True, workers=0)
    assert layerlock.embed(encoder, world, workers=0).whitening is None


def test_a_video_that_goes_after_it_was_looked_at_is_left_out_and_named(encoder: Encoder, folder: Path) -> None:
    source = open_source(str(folder), CLIP, seed=0, workers=1)
    os.remove(folder / "1.mp4")
    found = embed_source(encoder, Views(source), depths=[3, 5], batch=3, workers=0)
    assert found.samples == (0, 2)
    assert found.features.shape == (2, 2, MODEL.width)
    assert [Path(path).name for path in found.lost] == ["1.mp4"]


def test_nothing_left_to_embed_is_an_error(encoder: Encoder, folder: Path) -> None:
    source = open_source(str(folder), CLIP, seed=0, workers=1)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(LayerlockError, match="none of 3 videos"):
        embed_source(encoder, Views(source), depths=[3], batch=2, workers=0)


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("batch", -1), ("workers", -1)])
def test_numbers_that_cannot_be_are_named(encoder: Encoder, folder: Path, name: str, value: int) -> None:
    with pytest.raises(LayerlockError, match=f"{name}: {value} is"):
        layerlock.embed(encoder, folder, **{name: value})  # type: ignore[arg-type]


def test_the_endless_world_is_not_embedded(encoder: Encoder) -> None:
    with pytest.raises(LayerlockError, match="layerlock synth"):
        layerlock.embed(encoder, "synthetic")


def test_random_weights_are_those_that_training_starts_from(encoder: Encoder) -> None:
    again = Encoder.random(MODEL, encoder.clip, seed=2)
    other = Encoder.random(MODEL, encoder.clip, seed=3)
    assert torch.equal(again.vit.blocks[0].qkv.weight, encoder.vit.blocks[0].qkv.weight)
    assert not torch.equal(other.vit.blocks[0].qkv.weight, encoder.vit.blocks[0].qkv.weight)
