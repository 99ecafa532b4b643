"""What decays, and what optimizers compute."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import GRID, MASKING, MODEL, PIXEL_STAGE, config, learner, lock_stage, run_config, video

from layerlock.config import OptimConfig
from layerlock.dry_run import show
from layerlock.errors import ConfigError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Decoding, Learner
from layerlock.model.separate import SeparateDecoding
from layerlock.train.loop import train
from layerlock.train.optimizer import build_optimizer, moments_of

OPTIM = OptimConfig(lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9))


def test_matrices_decay_and_norms_biases_positions_and_tokens_do_not() -> None:
    made = learner(replace(MODEL, position="learned"), BackboneDecoding(blocks=2, tokens="learned"))
    decaying, other = build_optimizer(made, OPTIM).param_groups
    names = {id(p): name for name, p in made.named_parameters()}
    assert decaying["weight_decay"] == 0.1
    assert other["weight_decay"] == 0.0
    wanted = {n for n in names.values() if n.endswith(".weight") and "norm" not in n}
    assert {names[id(p)] for p in decaying["params"]} == wanted
    assert {names[id(p)] for p in other["params"]} == set(names.values()) - wanted
    assert {"vit.position", "decoder.token"} < set(names.values()) - wanted


@pytest.mark.parametrize(
    "decoding", [BackboneDecoding(blocks=2, tokens="learned"), SeparateDecoding(width=12, heads=2)]
)
def test_tokens_decay_where_that_is_asked_for(decoding: Decoding) -> None:
    made = Learner(MODEL, GRID, MASKING, decoding, PIXEL_STAGE)
    names = {id(p): name for name, p in made.named_parameters()}
    found = []
    for tokens in (False, True):
        decaying, _ = build_optimizer(made, replace(OPTIM, decay_tokens=tokens)).param_groups
        found.append({names[id(p)] for p in decaying["params"]})
    (token,) = found[1] - found[0]
    assert token in ("decoder.token", "decoders.at_4.token")


def test_only_what_the_stage_trains_is_optimized() -> None:
    made = learner(stage=lock_stage(3))
    held = {id(p) for group in build_optimizer(made, OPTIM).param_groups for p in group["params"]}
    assert held == {id(p) for p in made.live().values()}


def test_updates_are_adamws() -> None:
    made = learner()
    optimizer = build_optimizer(made, OPTIM)
    name = "vit.blocks.2.fc1.weight"
    weight = made.get_parameter(name)
    exact, m, v = weight.detach().double().clone(), 0.0, 0.0
    for step in (1, 2, 3):
        made.step(video(2, seed=step), torch.arange(2))
        assert weight.grad is not None
        g = weight.grad.double()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        exact = exact * (1 - 1e-2 * 0.1) - 1e-2 * (m / (1 - 0.8**step)) / ((v / (1 - 0.9**step)).sqrt() + 1e-8)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.allclose(weight.double(), exact, rtol=0, atol=1e-6)
    assert float(moments_of(made, optimizer)[name]["step"]) == 3


def test_updates_are_those_of_sgd_with_momentum_and_its_state_goes_through_a_switch() -> None:
    optim, name = replace(OPTIM, name="sgd"), "vit.blocks.4.fc1.weight"
    made = learner()
    optimizer = build_optimizer(made, optim)
    weight = made.get_parameter(name)
    exact, velocity = weight.detach().double().clone(), 0.0
    for step in (1, 2, 3):
        made.step(video(2, seed=step), torch.arange(2))
        assert weight.grad is not None
        velocity = 0.8 * velocity + weight.grad.double() + 0.1 * exact
        exact = exact - 1e-2 * velocity
        optimizer.step()
        optimizer.zero_grad()
        if step == 2:
            moments = moments_of(made, optimizer)
            made.enter(lock_stage(2))
            optimizer = build_optimizer(made, optim, moments)
        assert torch.allclose(weight.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["train", "dry run"])
def test_an_unknown_optimizer_lists_those_there_are(how: str, tmp_path: Path) -> None:
    made = config(tmp_path / "run", optim=replace(OPTIM, name="adam"))
    with pytest.raises(ConfigError, match=r"optim\.name: no optimizer is called 'adam'; there are: adamw, sgd"):
        train(made, quiet=True) if how == "train" else show(made)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("noise")
def test_a_run_with_sgd_is_resumed_exactly(tmp_path: Path) -> None:
    whole, cut = (config(tmp_path / name, optim=OptimConfig(name="sgd", lr=1e-2)) for name in ("whole", "cut"))
    train(whole, quiet=True)
    train(replace(cut, run=run_config(keep=9)), quiet=True)
    for folder in sorted((tmp_path / "cut" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)
    train(cut, resume=True, quiet=True)
    first, second = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)
