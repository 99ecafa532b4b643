"""The backbone: where rotations act, what attention computes, which blocks run."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny import GRID, MODEL, TOKENS
from torch import Tensor
from torch.nn import functional as F

from layerlock import draws
from layerlock.model.position import rotate
from layerlock.model.vit import Block, Dense, Norm, Position, ViT, ViTConfig, initialize

POSITIONS = get_args(Position)


def vit(position: Position = "rope", seed: int = 0) -> ViT:
    made = ViT(replace(MODEL, position=position), GRID)
    initialize(made, draws.generator(seed, "weights"))
    return made


def patches(batch: int = 2) -> Tensor:
    return torch.rand(batch, TOKENS, MODEL.patch_values, generator=torch.Generator().manual_seed(0))


def count_blocks(model: ViT) -> list[int]:
    """A list that grows by the number of each block that runs."""
    ran: list[int] = []
    for number, block in enumerate(model.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    return ran


def test_rope_turns_queries_keys_and_values_after_the_first_norm() -> None:
    model = vit()
    block, rotation, d = model.blocks[0], model.rotation(), MODEL.width
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    x = torch.randn(2, TOKENS, d)
    y = rotate(F.layer_norm(x, (d,), block.norm1.weight, block.norm1.bias, 1e-6), rotation)
    q, k, v = F.linear(y, block.qkv.weight, block.qkv.bias).split(d, dim=-1)
    heads = [part.unflatten(-1, (2, d // 2)).transpose(1, 2) for part in (q, k, v)]
    score = (heads[0] @ heads[1].transpose(-1, -2)) / (d // 2) ** 0.5
    mixed = (score.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)
    wanted = x + F.linear(mixed, block.proj.weight, block.proj.bias)
    z = F.layer_norm(wanted, (d,), block.norm2.weight, block.norm2.bias, 1e-6)
    z = F.gelu(F.linear(z, block.fc1.weight, block.fc1.bias), approximate="tanh")
    wanted = wanted + F.linear(z, block.fc2.weight, block.fc2.bias)
    assert torch.allclose(block(x, rotation), wanted, rtol=1e-5, atol=1e-5)


def test_with_uniform_attention_values_still_carry_their_position() -> None:
    model = vit()
    block = model.blocks[0]
    with torch.no_grad():
        block.qkv.weight[: 2 * MODEL.width] = 0  # no queries, no keys
    x = torch.randn(1, TOKENS, MODEL.width)
    assert not torch.allclose(block.attention(x, model.rotation()), block.attention(x, None), atol=1e-3)


def test_rope_in_attention_leaves_values_alone() -> None:
    model = vit("rope-attention")
    block = model.blocks[0]
    x = torch.randn(1, TOKENS, MODEL.width)
    assert not torch.allclose(block.attention(x, model.rotation()), block.attention(x, None), atol=1e-3)
    with torch.no_grad():
        block.qkv.weight[: 2 * MODEL.width] = 0
    assert torch.allclose(block.attention(x, model.rotation()), block.attention(x, None), atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_way_to_tell_position_runs_and_all_but_none_see_order(position: Position) -> None:
    model, order = vit(position), torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1))
    x = patches()
    (plain,), (shuffled,) = model.intermediates(x, [6]), model.intermediates(x[:, order], [6])
    assert plain.isfinite().all()
    blind = torch.allclose(plain[:, order], shuffled, atol=1e-4)
    assert blind == (position == "none")


@pytest.mark.parametrize("position", POSITIONS)
def test_intermediates_are_the_blocks_one_by_one_and_run_no_deeper_than_asked(position: Position) -> None:
    model = vit(position)
    with torch.no_grad():
        x = model.project(patches())
        wanted = [x := block(x, model.rotation()) for block in model.blocks]
        ran = count_blocks(model)
        found = model.intermediates(patches(), [4, 0, 2, 2])
    assert ran == [1, 2, 3, 4]
    assert torch.equal(found[0], wanted[3])
    assert torch.equal(found[1], model.project(patches()))
    assert torch.equal(found[2], wanted[1])
    assert torch.equal(found[3], wanted[1])


def test_recomputed_blocks_give_the_same_gradients() -> None:
    grads = []
    for recompute in (False, True):
        model = vit()
        model.run(model.project(patches()), model.rotation(), 0, 6, recompute=recompute).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_bfloat16_stays_close_to_float32() -> None:
    full, half = vit(), vit()
    half.compute = torch.bfloat16
    with torch.no_grad():
        a, b = full.intermediates(patches(), [6])[0], half.intermediates(patches(), [6])[0]
    assert b.dtype == torch.bfloat16
    assert (a - b.float()).norm() < 0.02 * a.norm()
    assert all(p.dtype == torch.float32 for p in half.parameters())


def test_norms_take_bfloat16_and_compute_in_float32() -> None:
    x = (torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) * 3 + 100).bfloat16()
    wanted = F.layer_norm(x.float(), (64,), eps=1e-6)
    normed = Norm(64)(x)
    assert normed.dtype == torch.bfloat16
    torch.testing.assert_close(normed.float(), wanted, rtol=2**-8, atol=1e-4)  # half a unit of the last of its 8 bits


def test_first_weights_are_bounded_and_the_same_for_a_seed() -> None:
    first, again, other = vit("learned"), vit("learned"), vit("learned", seed=1)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if a.ndim == 2:
            assert not torch.equal(a, c)
            adds = "blocks" in name and ("proj" in name or "fc2" in name)
            bound = (6 / sum(a.shape)) ** 0.5 * ((2 * MODEL.depth) ** -0.5 if adds else 1.0)
            if name != "position":
                assert 0.9 * bound < a.abs().max() <= bound
        elif "norm" in name and name.endswith("weight"):
            assert torch.equal(a, torch.ones_like(a))
        else:
            assert not a.any()
    assert 0.015 < first.position.std() < 0.025


def test_pixels_are_normalised_by_channel() -> None:
    model = ViT(replace(MODEL, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)), GRID)
    clips = torch.randint(0, 256, (2, TOKENS, MODEL.patch_values), dtype=torch.uint8)
    found = model.normalize(clips)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)]):
        wanted = (clips[..., channel::3] / 255 - mean) / std
        assert torch.allclose(found[..., channel::3], wanted, atol=1e-6)
    assert torch.equal(model.project(clips), model.embed(found))
    assert torch.equal(ViT(MODEL, GRID).normalize(clips), clips / 255)


def test_problems_of_a_shape_come_all_at_once() -> None:
    assert len(ViTConfig(width=0, depth=-1, rope_fractions=(0.5, 0.5, 0.5), std=(0, 1, 1)).problems()) == 4
    assert "heads" in ViTConfig(width=10, heads=3).problems()[0]
    assert not ViTConfig().problems()


def test_blocks_have_biases_everywhere() -> None:
    assert all(part.bias is not None for part in Block(MODEL).modules() if isinstance(part, Dense | Norm))
