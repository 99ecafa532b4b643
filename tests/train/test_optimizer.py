"""What decays, and what AdamW computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import GRID, MASKING, MODEL, PIXEL_STAGE, learner, lock_stage, video

from layerlock.config import OptimConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Decoding, Learner
from layerlock.model.separate import SeparateDecoding
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
