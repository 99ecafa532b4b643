"""Weights to and from transformers' VideoMAE, against its own outputs, gradients and loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock.encoders.videomae_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Weights,
    clip_grid,
    fields_of,
    separate_decoding,
    to_transformers,
    vit_config,
    vit_from_transformers,
)
from layerlock.errors import LayerlockError
from layerlock.model.patches import gather_tokens, patchify
from layerlock.model.position import sincos_1d_table
from layerlock.model.separate import SeparateDecoder, SeparateDecoding, normalized_patches
from layerlock.model.vit import Block, Dense, ViT, ViTConfig

FIELDS: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "num_frames": 8,
    "tubelet_size": 2,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qv_bias": True,
    "use_mean_pooling": False,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 40,
}
TOKENS = 64


@dataclass
class Ours:
    """Our three parts of a VideoMAE."""

    vit: ViT
    decoder: SeparateDecoder
    head: Dense

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Ours:
        model, decoding, grid = vit_config(fields), separate_decoding(fields), clip_grid(fields)
        decoder = SeparateDecoder(decoding, model.width, grid)
        return cls(ViT(model, grid), decoder, Dense(decoder.width, model.patch_values))

    def state(self) -> Weights:
        return Weights(*(dict(part.state_dict()) for part in (self.vit, self.decoder, self.head)))

    def gradients(self) -> Weights:
        parts = (self.vit, self.decoder, self.head)
        return Weights(*({n: p.grad for n, p in part.named_parameters() if p.grad is not None} for part in parts))

    def predict(self, video_btchw: Tensor, context_bk: Tensor, masked_bq: Tensor) -> Tensor:
        """Patches `[B, Q, P]` at the masked positions."""
        patches_bnp = patchify(video_btchw, self.vit.config.patch)
        x = self.vit.project(gather_tokens(patches_bnp, context_bk), context_bk)
        x = self.vit.norm_out(self.vit.run(x, self.vit.rotation(), 0, self.vit.config.depth))
        return self.head(self.decoder(x, context_bk, masked_bq))


def theirs(fields: dict[str, Any]) -> nn.Module:
    """Their model, every parameter away from its first value."""
    transformers = pytest.importorskip("transformers")
    made: nn.Module = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**fields)).eval()
    perturb(made)
    return made


def perturb(*modules: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (p for module in modules for p in module.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def clips(fields: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two clips in [0, 1], which of their patches are masked, and the positions of both kinds, in order."""
    generator = torch.Generator().manual_seed(6)
    size = fields["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    video = torch.rand(2, fields["num_frames"], 3, height, width, generator=generator)
    tokens = torch.Size(clip_grid(fields)).numel()
    order = torch.rand(2, tokens, generator=generator).argsort(dim=1)
    context_bk, masked_bq = order[:, : tokens // 4].sort(dim=1).values, order[:, tokens // 4 :].sort(dim=1).values
    masked_bn = torch.ones(2, tokens, dtype=torch.bool).scatter(1, context_bk, False)
    return video, masked_bn, context_bk, masked_bq


def normalized(video_btchw: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (video_btchw - mean) / std


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < 1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_mean_pooling": True},
        {"image_size": (32, 16)},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"layer_norm_eps": 0.1},
    ],
    ids=["final norm", "no final norm", "oblong", "tanh", "eps"],
)
def test_outputs_gradients_and_loss_are_theirs(changes: dict[str, Any]) -> None:
    fields = FIELDS | changes
    reference = theirs(fields)
    ours = Ours.of(fields)
    perturb(ours.vit, ours.decoder, ours.head)
    reference.load_state_dict(to_transformers(ours.state(), fields))
    video, masked_bn, context_bk, masked_bq = clips(fields)
    wanted = reference(normalized(video), bool_masked_pos=masked_bn)
    found = ours.predict(video, context_bk, masked_bq)
    assert wanted.logits.std() > 0.3
    assert close(found, wanted.logits)
    assert ours.decoder.norm.eps == reference.decoder.norm.eps

    labels = gather_tokens(normalized_patches(patchify(video, ours.vit.config.patch)), masked_bq)
    loss = F.mse_loss(found, labels)
    assert loss.item() == pytest.approx(wanted.loss.item(), rel=1e-5)

    loss.backward()
    wanted.loss.backward()
    found, gradients = to_transformers(ours.gradients(), fields), dict(reference.named_parameters())
    assert found.keys() == gradients.keys()
    for name, value in found.items():
        assert value.any(), f"{name} has no gradient to compare"
        assert (value - gradients[name].grad).norm() < 1e-4 * value.norm(), name


def test_what_was_trained_here_runs_the_same_there() -> None:
    transformers = pytest.importorskip("transformers")
    ours = Ours.of(FIELDS)
    perturb(ours.vit, ours.decoder, ours.head)
    fields = fields_of(ours.vit.config, ours.decoder.config, frames=8, size=32)
    reference = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**fields)).eval()
    reference.load_state_dict(to_transformers(ours.state(), fields))
    video, masked_bn, context_bk, masked_bq = clips(FIELDS)
    wanted = reference(normalized(video), bool_masked_pos=masked_bn).logits
    assert close(ours.predict(video, context_bk, masked_bq), wanted)


@pytest.mark.parametrize("qv_bias", [True, False])
def test_fields_are_those_of_their_config(qv_bias: bool) -> None:
    transformers = pytest.importorskip("transformers")
    fields = transformers.VideoMAEConfig(**(FIELDS | {"qv_bias": qv_bias})).to_dict()
    if qv_bias:
        assert vit_config(fields) == vit_config(FIELDS)
        assert separate_decoding(fields) == separate_decoding(FIELDS)
        assert clip_grid(fields) == (4, 4, 4)
    else:
        with pytest.raises(LayerlockError, match="without biases"):
            vit_config(fields)


def test_there_and_back_is_the_identity_and_older_names_are_read() -> None:
    ours = Ours.of(FIELDS)
    perturb(ours.vit, ours.decoder, ours.head)
    there = to_transformers(ours.state(), FIELDS)
    old = {name.replace("attention.query.bias", "attention.q_bias"): value for name, value in there.items()}
    old = {name.replace("attention.value.bias", "attention.v_bias"): value for name, value in old.items()}
    assert len(set(old) - set(there)) == 2 * (3 + 2)
    for state in (there, old):
        found, wanted = vit_from_transformers(state, FIELDS), ours.state().vit
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_first_tensor_that_is_off_is_named() -> None:
    ours, key = Ours.of(FIELDS), "videomae.encoder.layer.1.intermediate.dense.weight"
    state = to_transformers(ours.state(), FIELDS)
    with pytest.raises(LayerlockError, match=rf"video\.pt: {key} is \[80, 47\], wanted \[80, 48\]"):
        vit_from_transformers(state | {key: state[key][:, 1:]}, FIELDS, "video.pt")
    with pytest.raises(LayerlockError, match=f"no tensor {key}"):
        vit_from_transformers({name: value for name, value in state.items() if name != key}, FIELDS)
    with pytest.raises(LayerlockError, match=f"{key} is no tensor but list"):
        vit_from_transformers(state | {key: [1.0]}, FIELDS)
    with pytest.raises(LayerlockError, match=r"unknown tensor pooler\.weight"):
        vit_from_transformers(state | {"pooler.weight": torch.zeros(3)}, FIELDS)
    wider = ours.state().head | {"bias": torch.zeros(2)}
    with pytest.raises(LayerlockError, match=r"head: bias is \[2\], wanted \[384\]"):
        to_transformers(ours.state()._replace(head=wider), FIELDS)


def test_configs_that_have_no_counterpart_are_refused() -> None:
    for changes, message in (
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_channels": 1}, "num_channels 1"),
        ({"qv_bias": False}, "without biases"),
        ({"hidden_size": "24"}, "hidden_size is '24', not a positive number"),
        ({"patch_size": [2, 16, 16]}, r"patch_size is \[2, 16, 16\], not one or two positive numbers"),
    ):
        with pytest.raises(LayerlockError, match=message):
            vit_config(FIELDS | changes)
    with pytest.raises(LayerlockError, match="no field hidden_size"):
        vit_config({name: value for name, value in FIELDS.items() if name != "hidden_size"})
    model, decoding = vit_config(FIELDS), separate_decoding(FIELDS)
    assert {name: FIELDS[name] for name in FIELDS} == fields_of(model, decoding, frames=8, size=32)
    with pytest.raises(LayerlockError, match=r"model\.position = 'rope' \(VideoMAE: 'sincos-1d'\)"):
        fields_of(replace(model, position="rope"), decoding, frames=8, size=32)
    with pytest.raises(LayerlockError, match=r"decoder\.input_bias = True"):
        fields_of(model, SeparateDecoding(**(vars(decoding) | {"input_bias": True})), frames=8, size=32)


def test_keys_without_bias_are_keys_with_a_bias_of_zero() -> None:
    config = ViTConfig(width=24, depth=1, mlp=48, heads=3, position="none")
    full, keyless = Block(config), Block(replace(config, key_bias=False))
    perturb(full)
    with torch.no_grad():
        full.qkv.bias[24:48] = 0
    state = full.state_dict()
    keyless.load_state_dict(state | {"qkv.bias": torch.cat([state["qkv.bias"][:24], state["qkv.bias"][48:]])})
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(10))
    assert torch.equal(full(x, None), keyless(x, None))
    assert keyless(x.bfloat16(), None).dtype == torch.bfloat16


def test_sincos_over_the_number_of_a_token_is_the_loops() -> None:
    table = sincos_1d_table(70, 10)
    for number in (0, 1, 7, 69):
        for i in range(5):
            angle = torch.tensor(number / 10_000 ** (2 * i / 10), dtype=torch.float64)
            assert table[number, 2 * i].item() == pytest.approx(angle.sin().item(), abs=1e-6)
            assert table[number, 2 * i + 1].item() == pytest.approx(angle.cos().item(), abs=1e-6)
