"""First weights from other models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hub_models import hub_model
from scipy.ndimage import zoom
from tiny import FIXTURES

import layerlock
from layerlock.config import Config
from layerlock.data import ClipConfig
from layerlock.encoders import open_encoder
from layerlock.errors import ConfigError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Learner
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plan import Stage, Tap
from layerlock.model.encoder import Encoder
from layerlock.model.patches import resampled
from layerlock.model.position import fixed_table
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import ViT, ViTConfig
from layerlock.train.folder import RunFolder
from layerlock.train.start import weights_from

FOURDS = f"4ds:{FIXTURES / '4ds_checkpoint.npz'}"


def begun(init_from: str, model: ViTConfig, grid: tuple[int, int, int]) -> ViT:
    """The backbone of a learner that begins with those weights."""
    stage = Stage(frozen=0, last=model.depth, taps=(Tap(depth=1),))
    weights = weights_from(init_from, model, grid)
    return Learner(model, grid, RandomMasking(), BackboneDecoding(blocks=1), stage, seed=3, weights=weights).vit


def saved(model: ViTConfig, clip_size: int, folder: Path) -> Encoder:
    from layerlock.model.encoder import ClipShape

    encoder = Encoder.random(model, ClipShape(frames=4, stride=2, size=clip_size), seed=1)
    encoder.save_pretrained(folder)
    return encoder


def test_a_published_4ds_checkpoint_begins_a_run() -> None:
    encoder = open_encoder(FOURDS)
    assert isinstance(encoder, Encoder)
    vit = begun(FOURDS, encoder.vit.config, encoder.grid)
    assert all(torch.equal(value, vit.state_dict()[name]) for name, value in encoder.vit.state_dict().items())


def test_a_learned_table_is_resampled_for_other_clips() -> None:
    encoder = open_encoder(FOURDS)
    assert isinstance(encoder, Encoder)
    t, h, w = encoder.grid
    vit = begun(FOURDS, encoder.vit.config, (2 * t, h + 1, w))
    position = vit.state_dict()["position"]
    table = encoder.vit.state_dict()["position"]
    assert position.shape == (2 * t * (h + 1) * w, table.shape[1])
    assert torch.equal(position, resampled(table[None], encoder.grid, (2 * t, h + 1, w))[0])
    assert torch.equal(vit.blocks[0].qkv.weight, encoder.vit.blocks[0].qkv.weight)


@pytest.mark.parametrize(("old", "new"), [((2, 3, 4), (4, 6, 8)), ((4, 4, 4), (2, 5, 3)), ((1, 2, 2), (3, 2, 2))])
def test_resampling_is_linear_along_each_axis(old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    table = torch.randn(old[0] * old[1] * old[2], 5, generator=torch.Generator().manual_seed(0))
    volume = table.reshape(*old, 5).numpy()
    factors = [b / a for a, b in zip(old, new, strict=True)]
    wanted = zoom(volume, (*factors, 1), order=1, mode="nearest", grid_mode=True)
    assert np.allclose(resampled(table[None], old, new).reshape(*new, 5).numpy(), wanted, atol=1e-5)
    assert resampled(table, old, old) is table


def test_a_fixed_table_begins_a_learned_one(tmp_path: Path) -> None:
    model = ViTConfig(width=24, depth=3, mlp=32, heads=2, patch=(2, 8, 8), position="sincos-1d")
    saved(model, 16, tmp_path)
    vit = begun(str(tmp_path), replace(model, position="learned"), (2, 4, 4))
    table = fixed_table("sincos-1d", (2, 2, 2), 24)
    assert table is not None
    assert torch.equal(vit.state_dict()["position"], resampled(table[None], (2, 2, 2), (2, 4, 4))[0])


@pytest.mark.parametrize("position", ["rope", "sincos", "rope-attention", "none"])
def test_positions_by_coordinates_hold_for_any_clip(position: str, tmp_path: Path) -> None:
    model = ViTConfig(width=24, depth=3, mlp=32, heads=2, patch=(2, 8, 8), position=position)  # type: ignore[arg-type]
    encoder = saved(model, 16, tmp_path)
    vit = begun(str(tmp_path), model, (2, 4, 4))
    assert torch.equal(vit.embed.weight, encoder.vit.embed.weight)


def test_numbered_positions_mean_nothing_in_another_grid(tmp_path: Path) -> None:
    model = ViTConfig(width=24, depth=3, mlp=32, heads=2, patch=(2, 8, 8), position="sincos-1d")
    saved(model, 16, tmp_path)
    with pytest.raises(ConfigError, match=r"2 x 2 x 2.*2 x 4 x 4.*--model\.position learned"):
        weights_from(str(tmp_path), model, (2, 4, 4))


def test_a_config_names_what_differs(tmp_path: Path) -> None:
    model = ViTConfig(width=24, depth=3, mlp=32, heads=2, patch=(2, 8, 8))
    saved(model, 16, tmp_path)
    config = Config(model=replace(model, gelu="exact", heads=3), clip=ClipConfig(frames=4, size=16))
    with pytest.raises(ConfigError, match=r"(?s)model\.heads.*model\.gelu"):
        weights_from(str(tmp_path), config.model, config.grid)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(("frozen", "begun"), [(0, "pixels"), (2, "h2")])
def test_layerlock_goes_on_from_a_published_encoder(frozen: int, begun: str, tmp_path: Path) -> None:
    hub_model("VideoMAEModel", image_size=24, hidden_size=24).save_pretrained(tmp_path / "hub")
    start = f"hf:{tmp_path / 'hub'}"
    before = open_encoder(start)
    assert isinstance(before, Encoder)
    plan = replace(tiny.LOCK, frozen=frozen, first=frozen + 1, last=2 if not frozen else 3)
    made = tiny.config(
        tmp_path / "run",
        init_from=start,
        model=before.vit.config,
        decoder=SeparateDecoding(width=24, depth=1, heads=2),
        plan=plan,
    )
    layerlock.pretrain(made, quiet=True)
    lines = list(RunFolder(tmp_path / "run").lines())
    assert lines[0]["targets"] == begun
    assert [line["frozen"] for line in lines] == sorted(line["frozen"] for line in lines)
    assert lines[-1]["frozen"] > frozen
    after = layerlock.load(tmp_path / "run")
    same = [
        all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(before.vit.blocks, after.vit.blocks, strict=True)
    ]
    assert same == [True] * frozen + [False] * (3 - frozen)
    assert torch.equal(before.vit.embed.weight, after.vit.embed.weight) == (frozen > 0)


@pytest.mark.usefixtures("noise")
def test_an_encoder_is_adapted_to_other_clips(tmp_path: Path) -> None:
    hub_model("VideoMAEModel", image_size=16, num_frames=4, hidden_size=24).save_pretrained(tmp_path / "hub")
    start = f"hf:{tmp_path / 'hub'}"
    made = layerlock.recipe("adapt-tiny", init_from=start)
    assert (made.clip.frames, made.clip.size, made.model.position) == (4, 16, "learned")
    made = replace(made, out=str(tmp_path / "run"), clip=tiny.CLIP, steps=3, batch=2, run=tiny.run_config())
    layerlock.pretrain(made, quiet=True)
    before, after = open_encoder(start), layerlock.load(tmp_path / "run")
    assert isinstance(before, Encoder)
    table = before.vit.position
    assert isinstance(table, torch.Tensor)
    wanted = resampled(table.detach()[None], before.grid, after.grid)[0]
    assert after.grid != before.grid
    assert torch.equal(after.vit.position, wanted), "frozen with what is below"  # type: ignore[arg-type]
    assert torch.equal(after.vit.blocks[0].qkv.weight, before.vit.blocks[0].qkv.weight)
    assert not torch.equal(after.vit.blocks[1].qkv.weight, before.vit.blocks[1].qkv.weight)
    assert list(RunFolder(tmp_path / "run").lines())[-1]["losses"].keys() == {"pixels", "h1"}
