"""Encoders as people hold them: saved, loaded, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import MODEL, video

from layerlock import draws
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.patches import patchify
from layerlock.model.vit import initialize


@pytest.fixture
def encoder() -> Encoder:
    made = Encoder(MODEL, ClipShape(frames=8, stride=2, size=24))
    initialize(made, draws.generator(0, "weights"))
    return made


@pytest.fixture
def folder(encoder: Encoder, tmp_path: Path) -> Path:
    return encoder.save_pretrained(tmp_path / "encoder")


def test_a_saved_encoder_comes_back_bit_for_bit(encoder: Encoder, folder: Path) -> None:
    again = Encoder.from_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert again.clip == encoder.clip
    assert again.vit.config == encoder.vit.config
    assert torch.equal(again(video(2)), encoder(video(2)))


def test_bytes_and_fractions_give_the_same_features_and_depth_defaults_to_the_headline(encoder: Encoder) -> None:
    clips = video(2)
    features = encoder(clips)
    assert features.shape == (2, 36, 24)
    assert torch.allclose(encoder(clips.float() / 255), features, atol=1e-5)
    assert torch.equal(features, encoder(clips, depth=5)), "floor(0.95 * 6)"
    assert not features.requires_grad


@pytest.mark.parametrize(
    ("depth", "fraction", "block"), [(48, 0.95, 45), (24, 0.95, 22), (20, 0.85, 17), (10, 0.05, 1), (6, 1.0, 6)]
)
def test_depth_fractions_are_floored_and_at_least_one(depth: int, fraction: float, block: int) -> None:
    class Shape(Encoder):
        depth = property(lambda self: depth)

    assert Shape.at_depth(Shape.__new__(Shape), fraction) == block


def test_an_encoder_first_read_in_inference_mode_can_be_trained_later(encoder: Encoder) -> None:
    with torch.inference_mode():
        features = encoder(video(1), depth=6)
    vit = encoder.vit.requires_grad_()
    trained = vit.intermediates(patchify(video(1), vit.config.patch), [6])[0]
    assert torch.equal(trained, features)
    trained.sum().backward()
    assert all(p.grad is not None for p in vit.blocks.parameters())


def test_features_come_as_a_grid_too(encoder: Encoder) -> None:
    tokens = encoder.forward_intermediates(video(1), [2])[0]
    grid = encoder.forward_intermediates(video(1), [2], output_fmt="grid")[0]
    assert torch.equal(grid, tokens.reshape(1, 4, 3, 3, 24))


@pytest.mark.parametrize(
    "clips",
    [
        video(1)[0],
        video(1)[:, :7],
        video(1)[..., :20],
        video(1).transpose(1, 2),
        torch.zeros(1, 8, 3, 24, 24, dtype=torch.int64),
        torch.zeros(1, 8, 3, 24, 24, dtype=torch.bool),
    ],
    ids=["no batch", "a frame less", "narrow", "channels first", "int64", "bool"],
)
def test_clips_of_another_shape_or_type_are_refused(encoder: Encoder, clips: torch.Tensor) -> None:
    with pytest.raises(LayerlockError, match="clips"):
        encoder(clips)


@pytest.mark.parametrize("indices", [[], [7], [-1], [0, 9]])
def test_depths_that_are_not_there_are_refused(encoder: Encoder, indices: list[int]) -> None:
    with pytest.raises(LayerlockError, match="0 to 6"):
        encoder.forward_intermediates(video(1), indices)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_weights_that_are_no_fractions_are_named(folder: Path, dtype: torch.dtype) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.to(dtype) for name, value in weights.items()}, folder / "model.safetensors")
    with pytest.raises(LayerlockError, match=f"is {dtype}, wanted floating point"):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("room", "change", "message"),
    [
        ("clip", {"stride": 0}, "clip.stride: 0 is not a positive"),
        ("clip", {"stride": 1.5}, "clip.stride: 1.5 is not a positive"),
        ("clip", {"fps": 0}, "clip.fps: 0 is not above 0"),
        ("clip", {"fps": "25"}, "clip.fps: '25' is not above 0"),
        ("model", {"heads": 7}, "7 heads do not divide"),
    ],
)
def test_settings_that_no_encoder_has_are_named(folder: Path, room: str, change: dict[str, Any], message: str) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {room: settings[room] | change}))
    with pytest.raises(LayerlockError, match=message):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_are_named(folder: Path, change: str) -> None:
    weights = load_file(folder / "model.safetensors")
    if change == "missing":
        del weights["blocks.3.fc1.bias"]
    elif change == "surplus":
        weights["head.weight"] = torch.zeros(3)
    else:
        weights["embed.bias"] = torch.zeros(5)
    save_file(weights, folder / "model.safetensors")
    name = {"missing": r"blocks\.3\.fc1\.bias", "surplus": r"head\.weight", "shape": r"embed\.bias is \[5\]"}[change]
    with pytest.raises(LayerlockError, match=name):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"format": "other/1"}',
        '{"format": "layerlock-encoder/1"}',
        '{"format": "layerlock-encoder/1", "model": 3, "clip": {}}',
        '{"format": "layerlock-encoder/1", "model": {"widht": 3}, "clip": {"frames": 8, "stride": 1, "size": 24}}',
        '{"format": "layerlock-encoder/1", "model": {}, "clip": {"frames": 7, "stride": 1, "size": 24}}',
    ],
)
def test_settings_that_are_not_an_encoders_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(LayerlockError, match=r"config\.json"):
        Encoder.from_pretrained(folder)


def test_missing_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match="no encoder here"):
        Encoder.from_pretrained(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0rubbish!")
    with pytest.raises(LayerlockError, match=r"model\.safetensors"):
        Encoder.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(LayerlockError, match=r"model\.safetensors: missing"):
        Encoder.from_pretrained(folder)


def test_settings_say_all_that_is_needed(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    assert settings["clip"] == {"frames": 8, "stride": 2, "size": 24, "fps": None}
    assert settings["model"]["width"] == 24
