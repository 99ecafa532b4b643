"""V-JEPA's encoder and predictor, against transformers' VJEPA2 with the positions of both left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tiny import GRID, MODEL, TOKENS
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock import draws
from layerlock.model.cost import backbone_parameters
from layerlock.model.patches import gather_tokens, patchify
from layerlock.model.separate import SeparateDecoder, SeparateDecoding
from layerlock.model.vit import Block, Dense, ViT, ViTConfig, initialize

ENCODER = ViTConfig(
    width=48, depth=3, mlp=192, heads=4, patch=(2, 8, 8), position="none", gelu="exact", final_norm=True
)
PREDICTOR = SeparateDecoding(width=24, depth=2, heads=2, mlp=96, position="none", mask_tokens=2)


@dataclass
class VJEPA:
    """Their encoder and predictor with rotations switched off, and ours with the same weights."""

    encoder: nn.Module
    predictor: nn.Module
    vit: ViT
    decoder: SeparateDecoder
    head: Dense


@pytest.fixture
def vjepa(monkeypatch: pytest.MonkeyPatch) -> VJEPA:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.models.vjepa2.modeling_vjepa2
    monkeypatch.setattr(theirs.VJEPA2RopeAttention, "apply_rotary_embeddings", lambda self, qk, positions: qk)
    config = transformers.VJEPA2Config(
        patch_size=8,
        crop_size=24,
        frames_per_clip=8,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        pred_hidden_size=24,
        pred_num_hidden_layers=2,
        pred_num_attention_heads=2,
    )
    model = transformers.VJEPA2Model(config).eval()
    perturb(model)
    vit, decoder, head = ViT(ENCODER, GRID), SeparateDecoder(PREDICTOR, 48, GRID), Dense(24, 48)
    copy_encoder(model.encoder, vit)
    copy_predictor(model.predictor, decoder, head)
    return VJEPA(model.encoder, model.predictor, vit, decoder, head)


def perturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def block_state(layer: nn.Module) -> dict[str, Tensor]:
    """A layer of theirs as the state of a block of ours."""
    state = layer.state_dict()
    return {
        name: torch.cat([state[f"attention.{part}.{name[4:]}"] for part in ("query", "key", "value")])
        if name.startswith("qkv")
        else state[name.replace("proj", "attention.proj").replace("fc", "mlp.fc")]
        for name in Block(MODEL).state_dict()
    }


def copy_encoder(encoder: nn.Module, vit: ViT) -> None:
    convolution = encoder.embeddings.patch_embeddings.proj
    vit.embed.load_state_dict(
        {"weight": convolution.weight.permute(0, 2, 3, 4, 1).flatten(1), "bias": convolution.bias}
    )
    for layer, block in zip(encoder.layer, vit.blocks, strict=True):
        block.load_state_dict(block_state(layer))
    vit.norm.load_state_dict(encoder.layernorm.state_dict())


def copy_predictor(predictor: nn.Module, decoder: SeparateDecoder, head: Dense) -> None:
    decoder.embed.load_state_dict(predictor.embeddings.predictor_embeddings.state_dict())
    decoder.token.data.copy_(torch.cat([token[0] for token in predictor.embeddings.mask_tokens][:2]))
    for layer, block in zip(predictor.layer, decoder.blocks, strict=True):
        block.load_state_dict(block_state(layer))
    decoder.norm.load_state_dict(predictor.layernorm.state_dict())
    head.load_state_dict(predictor.proj.state_dict())


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < 1e-4)


@torch.no_grad()
def test_every_block_and_the_final_norm_are_theirs(vjepa: VJEPA) -> None:
    video = torch.rand(2, 8, 3, 24, 24, generator=torch.Generator().manual_seed(8))
    wanted: list[Tensor] = []
    for layer in vjepa.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: wanted.append(output[0]))
    last = vjepa.encoder(video).last_hidden_state
    found = vjepa.vit.intermediates(patchify(video, ENCODER.patch), [0, 1, 2, 3])
    assert len(wanted) == 3
    assert close(found[0], vjepa.encoder.embeddings(video))
    assert close(found[1], wanted[0])
    assert close(found[2], wanted[1])
    assert close(vjepa.vit.run(found[2], None, 2, 3), wanted[2])
    assert close(found[3], last)
    assert not close(found[3], wanted[2])


@torch.no_grad()
def test_the_predictor_is_theirs(vjepa: VJEPA) -> None:
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(2, TOKENS, 48, generator=generator)
    order = torch.rand(2, TOKENS, generator=generator).argsort(dim=1)
    context_bk, query_bq = order[:, :10], order[:, 10:25]
    tokens, found = vjepa.predictor.embeddings.mask_tokens, []
    for mask in (1, 0):  # their call takes the second by default
        wanted = vjepa.predictor(x, [context_bk], [query_bq]).last_hidden_state
        found.append(vjepa.head(vjepa.decoder(gather_tokens(x, context_bk), context_bk, query_bq, mask=mask)))
        assert wanted.std() > 0.1
        assert close(found[-1], wanted)
        tokens[1].data.copy_(tokens[0].data)
    assert not close(*found)


def test_a_final_norm_acts_on_the_last_block_alone() -> None:
    plain, normed = ViT(MODEL, GRID), ViT(replace(MODEL, final_norm=True, norm_eps=0.5), GRID)
    perturb(normed)
    state = normed.state_dict()
    weight, bias = state.pop("norm.weight"), state.pop("norm.bias")
    plain.load_state_dict(state)
    plain_eps = ViT(replace(MODEL, norm_eps=0.5), GRID)
    plain_eps.load_state_dict(state)
    patches = torch.rand(2, TOKENS, MODEL.patch_values, generator=torch.Generator().manual_seed(10))
    wanted, found = plain_eps.intermediates(patches, [5, 6]), normed.intermediates(patches, [5, 6])
    assert torch.equal(found[0], wanted[0])
    assert torch.allclose(found[1], F.layer_norm(wanted[1], (24,), weight, bias, 0.5), atol=1e-6)
    assert torch.equal(normed.run(wanted[0], normed.rotation(), 5, 6), wanted[1])
    assert torch.equal(plain_eps.norm_out(wanted[1]), wanted[1])
    assert not torch.allclose(plain.intermediates(patches, [5])[0], wanted[0], atol=1e-3), "blocks have the eps too"


def test_the_exact_gelu_is_the_one_with_the_error_function() -> None:
    block = Block(replace(MODEL, position="none", gelu="exact"))
    perturb(block)
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(10)) * 3
    with torch.no_grad():
        y = x + block.attention(x, None)
        z = block.fc1(block.norm2(y))
        wanted = y + block.fc2(z * 0.5 * (1 + torch.erf(z / 2**0.5)))
    assert torch.allclose(block(x, None), wanted, atol=1e-5)


def test_names_of_weights_are_as_before_and_eps_must_be_positive() -> None:
    names = {"norm1", "qkv", "proj", "norm2", "fc1", "fc2"}
    state = ViT(replace(MODEL, depth=1), GRID).state_dict()
    assert set(state) == {
        "embed.weight",
        "embed.bias",
        *(f"blocks.0.{name}.{kind}" for name in names for kind in ("weight", "bias")),
    }
    assert state["blocks.0.qkv.bias"].shape == (72,)
    assert ViTConfig(norm_eps=0).problems() == ["model.norm_eps: 0 is not positive"]


@pytest.mark.parametrize("key_bias", [True, False])
@pytest.mark.parametrize("final_norm", [True, False])
def test_parameters_are_counted_with_every_option(key_bias: bool, final_norm: bool) -> None:
    config = replace(MODEL, key_bias=key_bias, final_norm=final_norm)
    assert backbone_parameters(config) == sum(p.numel() for p in ViT(config, GRID).parameters())


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (ViTConfig(width=1024, depth=24, mlp=4096, heads=16, patch=(2, 16, 16), final_norm=True), 303.9),
        (ViTConfig(width=192, depth=12, mlp=768, heads=3, patch=(8, 16, 16), final_norm=True), 6.5),
        (ViTConfig(width=384, depth=12, mlp=1536, heads=6, patch=(8, 16, 16), final_norm=True), 23.7),
    ],
    ids=["V-JEPA L", "blockwise Tiny", "blockwise Small"],
)
def test_encoders_have_the_published_parameters(config: ViTConfig, millions: float) -> None:
    assert backbone_parameters(config) / 1e6 == pytest.approx(millions, abs=0.05)


def test_normal_first_weights_are_those_of_their_models() -> None:
    """Of `VisionTransformer` and its predictor in V-JEPA and V-JEPA 2: block l adds with 1 / sqrt(2 l) of 0.02."""
    config = ViTConfig(width=192, depth=4, mlp=768, heads=3, patch=(2, 8, 8), position="none")
    made = ViT(config, GRID)
    initialize(made, draws.generator(0, "weights"), "normal")
    for number, block in enumerate(made.blocks, 1):
        for part in (block.qkv, block.fc1):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.02)
        for part in (block.proj, block.fc2):
            assert part.weight.std().item() == pytest.approx(0.02 / (2 * number) ** 0.5, rel=0.02)
        assert not any(part.bias.any() for part in (block.qkv, block.proj, block.fc1, block.fc2))
    assert made.embed.weight.std().item() == pytest.approx(0.02, rel=0.02)
