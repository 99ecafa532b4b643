"""The separate decoder against PyTorch's own transformer layers, its cost against PyTorch's counter."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from layerlock import draws
from layerlock.model.cost import dense_parameters
from layerlock.model.position import sincos_1d_table, sincos_table
from layerlock.model.separate import (
    SeparateDecoder,
    SeparateDecoding,
    normalized_patches,
    separate_flops,
)
from layerlock.model.vit import ViTConfig, initialize

GRID = (4, 3, 3)
TOKENS = 36
SHAPE = SeparateDecoding(width=24, depth=2, heads=3, mlp=40)
POSITIONS = get_args(get_type_hints(SeparateDecoding)["position"])
KINDS = ("weight", "bias")
BLOCKWISE = SeparateDecoding(width=192, depth=4, heads=3, mlp=768)


def decoder(config: SeparateDecoding = SHAPE) -> SeparateDecoder:
    """A decoder for features of width 20 whose every parameter is away from its first value."""
    made = SeparateDecoder(config, 20, GRID)
    initialize(made, draws.generator(0, "weights"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Features of 10 context tokens of two clips, their positions, and 15 positions to predict."""
    generator = torch.Generator().manual_seed(2)
    order = torch.rand(2, TOKENS, generator=generator).argsort(dim=1)
    return torch.randn(2, 10, 20, generator=generator), order[:, :10], order[:, 10:25]


def torch_layer(block: nn.Module, eps: float) -> nn.Module:
    """PyTorch's pre-norm layer with the weights of a block of ours."""
    layer = nn.TransformerEncoderLayer(24, 3, 40, 0.0, "gelu", eps, batch_first=True, norm_first=True)
    names = {"norm1": "norm1", "norm2": "norm2", "linear1": "fc1", "linear2": "fc2", "self_attn.out_proj": "proj"}
    state = {f"{theirs}.{k}": block.state_dict()[f"{ours}.{k}"] for theirs, ours in names.items() for k in KINDS}
    layer.load_state_dict(state | {f"self_attn.in_proj_{k}": block.state_dict()[f"qkv.{k}"] for k in KINDS})
    return layer


@pytest.mark.parametrize("position", POSITIONS)
def test_it_is_pytorchs_layers_on_context_and_mask_tokens_with_their_positions(position: str) -> None:
    made = decoder(replace(SHAPE, position=position, norm_eps=0.01, final_norm_eps=0.1))
    x, context_bk, query_bq = inputs()
    table = {
        "sincos": sincos_table(GRID, 24),
        "sincos-1d": sincos_1d_table(TOKENS, 24),
        "learned": made.position,
        "none": torch.zeros(TOKENS, 24),
    }[position]
    assert table is not None
    sequences = []
    for b in range(2):
        context = [made.embed(x[b, k]) + table[context_bk[b, k]] for k in range(10)]
        sequences.append(torch.stack(context + [made.token[0] + table[query_bq[b, q]] for q in range(15)]))
    y = torch.stack(sequences)
    for block in made.blocks:
        y = torch_layer(block, 0.01)(y)
    y = nn.functional.layer_norm(y, (24,), made.norm.weight, made.norm.bias, 0.1)
    found = made(x, context_bk, query_bq)
    assert found.shape == (2, 15, made.width)
    assert torch.allclose(found, y[:, 10:], atol=1e-5)


def test_options_reach_the_blocks() -> None:
    x, context_bk, query_bq = inputs()
    plain = decoder()
    tanh = decoder(replace(SHAPE, gelu="tanh"))
    assert not torch.equal(plain(x, context_bk, query_bq), tanh(x, context_bk, query_bq))
    lean = decoder(replace(SHAPE, key_bias=False, input_bias=False))
    assert lean.embed.bias is None
    assert lean.blocks[1].qkv.bias.shape == (48,)
    assert lean(x, context_bk, query_bq).isfinite().all()


def test_features_are_normed_on_entry_where_asked_for() -> None:
    plain, normed = decoder(), decoder(replace(SHAPE, input_norm=True, norm_eps=0.01))
    assert normed.input_norm is not None
    weight, bias = normed.input_norm.weight.detach(), normed.input_norm.bias.detach()
    assert not torch.equal(weight, torch.ones(20))
    normed.load_state_dict(plain.state_dict(), strict=False)
    plain.blocks.load_state_dict(normed.blocks.state_dict())
    for block in plain.blocks:
        block.norm1.eps = block.norm2.eps = 0.01
    x, context_bk, query_bq = inputs()
    by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 0.01).sqrt() * weight + bias
    torch.testing.assert_close(normed(x, context_bk, query_bq), plain(by_hand, context_bk, query_bq))


def test_features_that_the_encoder_has_normed_are_not_normed_again() -> None:
    shape = replace(SHAPE, input_norm=True)
    model = ViTConfig(width=20, depth=4, heads=2, mlp=40, final_norm=True)
    assert [shape.after(depth, model).input_norm for depth in (2, 4)] == [True, False]
    assert shape.after(4, replace(model, final_norm=False)).input_norm
    assert not SHAPE.after(2, model).input_norm


@pytest.mark.parametrize("position", POSITIONS)
def test_without_queries_it_predicts_the_whole_grid_in_order(position: str) -> None:
    made, (x, context_bk, _) = decoder(replace(SHAPE, position=position)), inputs()
    everything = torch.arange(TOKENS).expand(2, TOKENS)
    assert torch.allclose(made(x, context_bk), made(x, context_bk, everything), atol=1e-6)


def test_order_carries_nothing_and_position_everything() -> None:
    made, (x, context_bk, query_bq) = decoder(), inputs()
    plain = made(x, context_bk, query_bq)
    assert torch.allclose(made(x.flip(1), context_bk.flip(1), query_bq.flip(1)).flip(1), plain, atol=1e-5)
    assert not torch.allclose(made(x, context_bk.flip(1), query_bq), plain, atol=1e-3)
    assert not torch.allclose(made(x, context_bk, query_bq.flip(1)), plain, atol=1e-3)
    assert not torch.allclose(made(x.flip(0), context_bk, query_bq), plain, atol=1e-3)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_parameter_and_the_encoder_learn_and_recomputing_changes_nothing(position: str) -> None:
    gradients = []
    for recompute in (False, True):
        made, (x, context_bk, query_bq) = decoder(replace(SHAPE, position=position)), inputs()
        x.requires_grad_()
        out = made(x, context_bk, query_bq, recompute=recompute)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        gradients.append({"x": x.grad} | {name: p.grad for name, p in made.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert gradient.any(), name
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("position", POSITIONS)
def test_it_computes_in_the_type_of_the_features(position: str) -> None:
    made, (x, context_bk, query_bq) = decoder(replace(SHAPE, position=position)), inputs()
    with torch.no_grad():
        full, half = made(x, context_bk, query_bq), made(x.bfloat16(), context_bk, query_bq)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() < 0.02 * full.norm()
    assert {p.dtype for p in made.parameters()} == {torch.float32}


def test_first_weights_scale_what_a_block_adds() -> None:
    made = SeparateDecoder(replace(SHAPE, position="learned"), 20, GRID)
    initialize(made, draws.generator(0, "weights"))
    bound = (6 / 64) ** 0.5
    assert 0.9 * bound < made.blocks[0].fc1.weight.abs().max() <= bound
    assert 0.9 * bound / 2 < made.blocks[0].fc2.weight.abs().max() <= bound / 2, "two blocks: 1 / sqrt(4)"
    assert 0.015 < made.position.std() < 0.025
    assert made.token.any()


def parameters(config: SeparateDecoding, encoder_width: int, grid: tuple[int, int, int]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in SeparateDecoder(config, encoder_width, grid).parameters())


def test_decoders_have_the_published_parameters_heads_included() -> None:
    predictor = parameters(SeparateDecoding(), 1024, (8, 14, 14)) + dense_parameters(384, 1024)
    assert predictor / 1e6 == pytest.approx(22.1, abs=0.05)
    blockwise = parameters(BLOCKWISE, 192, (2, 8, 8)) + dense_parameters(192, 8 * 16 * 16 * 3)
    assert blockwise / 1e6 == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(
    ("config", "encoder_width", "grid", "context", "queries"),
    [
        (SHAPE, 20, GRID, 10, 15),
        (SHAPE, 20, GRID, 10, None),
        (SeparateDecoding(), 1024, (8, 14, 14), 300, 1200),
        (BLOCKWISE, 384, (2, 8, 8), 13, 115),
    ],
    ids=["tiny", "tiny, all positions", "V-JEPA", "blockwise"],
)
def test_flops_are_the_counters(
    config: SeparateDecoding, encoder_width: int, grid: tuple[int, int, int], context: int, queries: int | None
) -> None:
    with torch.device("meta"), torch.no_grad():
        made = SeparateDecoder(config, encoder_width, grid)
        query_bq = None if queries is None else torch.empty(1, queries, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            made(torch.empty(1, context, encoder_width), torch.empty(1, context, dtype=torch.int64), query_bq)
    counted = separate_flops(config, encoder_width, context, made.tokens if queries is None else queries)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_problems_of_a_shape_come_all_at_once() -> None:
    assert len(SeparateDecoding(width=0, depth=0, norm_eps=0).problems()) == 3
    assert SeparateDecoding(width=10, heads=3).problems() == ["decoder.heads: 3 heads do not divide a width of 10"]
    assert not SeparateDecoding().problems()


def test_normalised_patches_are_the_loops() -> None:
    patches = torch.randint(0, 256, (2, 5, 2 * 4 * 4 * 3), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    found = normalized_patches(patches)
    for b, n in np.ndindex(2, 5):
        for channel in range(3):
            values = patches[b, n, channel::3].double().numpy() / 255
            wanted = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
            assert np.abs(found[b, n, channel::3].numpy() - wanted).max() < 1e-3
    assert torch.equal(found, normalized_patches(patches.float() / 255))
    assert normalized_patches(torch.full((1, 1, 96), 7, dtype=torch.uint8)).abs().max() < 0.1, "a patch of one colour"
