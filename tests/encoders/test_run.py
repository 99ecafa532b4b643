"""Checkpoints of a run as encoders: the weights after so many steps, and what is said of names that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import config, run_config, video

from layerlock.encoders import at_hand, open_encoder
from layerlock.encoders.run import FACTS, TENSORS
from layerlock.errors import LayerlockError
from layerlock.learn.networks import opened
from layerlock.model.encoder import Encoder, load
from layerlock.train.loop import train


@pytest.fixture
def run(tmp_path: Path, noise: None) -> Path:
    """Twelve updates, the checkpoints after 4, 8 and 12 kept."""
    train(config(tmp_path / "run", run=run_config(keep=9)), quiet=True)
    return tmp_path / "run"


def test_a_checkpoint_opens_as_the_backbone_after_so_many_steps(run: Path) -> None:
    last, exported = open_encoder(f"{run}@12"), load(run)
    assert (last.name, last.clip) == (f"{run}@12", exported.clip)
    for a, b in zip(
        last.forward_intermediates(video(2), range(7)), exported.forward_intermediates(video(2), range(7)), strict=True
    ):
        assert torch.equal(a, b)
    earlier, kept = open_encoder(f"{run}@8"), load_file(run / "checkpoints" / "step-00000008" / TENSORS)
    assert isinstance(earlier, Encoder)
    weights = earlier.vit.state_dict()
    assert all(torch.equal(value, kept[f"model/vit.{name}"]) for name, value in weights.items())
    last_block = "blocks.5.fc2.weight"  # the first are frozen
    assert not torch.equal(weights[last_block], exported.vit.state_dict()[last_block])
    assert open_encoder(f"random:{run}@8").depth == 6
    assert at_hand(f"{run}@8")


def test_a_target_from_a_checkpoint_is_told_from_those_of_others(run: Path) -> None:
    before = [opened(f"{run}@{step}", 8).fingerprint for step in (4, 8)]
    assert len({*before, opened(str(run), 8).fingerprint}) == 3
    place = run / "checkpoints" / "step-00000008" / TENSORS
    tensors = load_file(place)
    save_file(tensors | {"model/vit.embed.bias": tensors["model/vit.embed.bias"] + 1}, place)
    after = [opened(f"{run}@{step}", 8).fingerprint for step in (4, 8)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_path_of_something_is_no_checkpoint(run: Path) -> None:
    Encoder.random(load(run).vit.config, load(run).clip, seed=4).save_pretrained(f"{run}@8")
    found = open_encoder(f"{run}@8")
    assert isinstance(found, Encoder)
    assert torch.equal(found.vit.embed.weight, load(f"{run}@8").vit.embed.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{run}@7", r"run: no checkpoint of step 7; there are those of steps 4, 8, 12$"),
        ("{run}@", "is no encoder: neither an existing folder nor one of RUN@STEP"),
        ("{run}@last", "is no encoder"),
        ("{run}/encoder@8", "is no encoder"),
        ("nowhere@8", "is no encoder"),
    ],
)
def test_what_is_no_checkpoint_is_said(run: Path, name: str, message: str) -> None:
    with pytest.raises(LayerlockError, match=message):
        open_encoder(name.format(run=run))


def test_a_run_without_a_whole_checkpoint_has_none(run: Path) -> None:
    for place in (run / "checkpoints").iterdir():
        (place / FACTS).unlink()
    with pytest.raises(LayerlockError, match="no checkpoint of step 8; there is none"):
        open_encoder(f"{run}@8")


def test_checkpoints_of_another_run_or_shape_and_damaged_ones_are_refused(run: Path, tmp_path: Path) -> None:
    place = run / "checkpoints" / "step-00000008"

    def refused(message: str) -> None:
        with pytest.raises(LayerlockError, match=message):
            open_encoder(f"{run}@8")

    facts = json.loads((place / FACTS).read_text())
    (place / FACTS).write_text(json.dumps(facts | {"step": 4}))
    refused("a checkpoint of step 4, in the folder of step 8")
    train(config(tmp_path / "other", steps=13), quiet=True)
    shutil.copy(tmp_path / "other" / "checkpoints" / "step-00000012" / FACTS, place)
    changed = json.loads((place / FACTS).read_text()) | {"step": 8}
    (place / FACTS).write_text(json.dumps(changed))
    refused(r"state\.json: the checkpoint of another run: its plan is not that of .*plan\.json")
    (place / FACTS).write_text(json.dumps(facts))
    tensors = load_file(place / TENSORS)
    save_file(tensors | {"model/vit.embed.bias": torch.zeros(5)}, place / TENSORS)
    refused(r"state\.safetensors: embed\.bias is \[5\], wanted \[24\]")
    (place / TENSORS).write_bytes(b"no tensors")
    refused("not a readable safetensors file")
    (place / FACTS).write_text("{")
    refused("cannot be read")
