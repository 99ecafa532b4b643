"""Checkpoints in their authors' own files: against transformers' models with the same weights, and by hand."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import hub_model, noise, normalized
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock.encoders import open_encoder, random_like
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape

ALL = [0, 1, 2, 3]
CLIP = ClipShape(frames=8, stride=4, size=32)
WIDE = {"hidden_size": 64, "num_attention_heads": 1, "layer_norm_eps": 1e-6}


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A backbone of transformers under the names of its authors."""
    found = {}
    for long, value in state.items():
        name = long
        for theirs, authors in (
            ("embeddings.patch_embeddings.", "patch_embed."),
            ("projection.", "proj."),
            ("encoder.layer.", "blocks."),
            ("encoder.blocks.", "blocks."),
            ("layer.", "blocks."),
            ("layernorm_before.", "norm1."),
            ("layernorm_after.", "norm2."),
            ("layernorm.", "norm."),
            ("attention.attention.", "attn."),
            ("attention.output.dense.", "attn.proj."),
            ("intermediate.dense.", "mlp.fc1."),
            ("output.dense.", "mlp.fc2."),
            ("attention.", "attn."),
        ):
            name = name.replace(theirs, authors)
        found[name] = value
    for name in [name for name in found if ".attn.query.weight" in name]:
        block = name.removesuffix("query.weight")
        parts = [found.pop(f"{block}{part}.weight") for part in ("query", "key", "value")]
        found[f"{block}qkv.weight"] = torch.cat(parts)
        biases = {part: found.pop(f"{block}{part}.bias", None) for part in ("query", "key", "value")}
        if biases["key"] is None:
            found |= {f"{block}q_bias": biases["query"], f"{block}v_bias": biases["value"]}
        else:
            found[f"{block}qkv.bias"] = torch.cat([*biases.values()])
    return found


def videomae(**changes: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    model = hub_model("VideoMAEModel", **WIDE | {"use_mean_pooling": False} | changes)
    return model, timm_names(model.state_dict())


def theirs(model: nn.Module, **options: Any) -> list[Tensor]:
    out = model(normalized(noise()), output_hidden_states=True, **options)
    return [*out.hidden_states[:3], out.last_hidden_state]


def assert_same(name: str, wanted: list[Tensor], clip: ClipShape | None = CLIP) -> None:
    found = open_encoder(name, clip=clip).forward_intermediates(noise(), ALL)
    assert max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)) < 1e-4
    assert (wanted[3] - wanted[2]).abs().max() > 0.1


def pretrained(state: dict[str, Tensor]) -> dict[str, Any]:
    """VideoMAE as its pre-training saves it: with a decoder, an optimizer and the command line."""
    rest = {"mask_token": torch.zeros(1, 1, 8), "encoder_to_decoder.weight": torch.zeros(8, 64)}
    weights = (
        {f"encoder.{name}": value for name, value in state.items()} | rest | {"decoder.norm.weight": torch.ones(8)}
    )
    return {"model": weights, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}


@pytest.mark.parametrize("ending", ["pth", "pt", "bin"])
def test_videomae_of_its_authors_is_transformers(ending: str, tmp_path: Path) -> None:
    model, state = videomae()
    torch.save(pretrained(state), tmp_path / f"checkpoint.{ending}")
    assert_same(str(tmp_path / f"checkpoint.{ending}"), theirs(model))


def test_videomae_fine_tuned_has_no_final_norm_and_a_head_that_is_left_out(tmp_path: Path) -> None:
    model, state = videomae(use_mean_pooling=True)
    head = {"fc_norm.weight": torch.ones(64), "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}
    torch.save({"module": state | head}, tmp_path / "tuned.pth")
    assert_same(str(tmp_path / "tuned.pth"), theirs(model))


def test_vjepa2_of_its_authors_is_transformers(tmp_path: Path) -> None:
    model = hub_model("VJEPA2Model", hidden_size=64, num_attention_heads=1)
    encoder = {
        name.removeprefix("encoder."): v for name, v in model.state_dict().items() if name.startswith("encoder.")
    }
    state = {f"module.backbone.{name}": value for name, value in timm_names(encoder).items()}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"encoder": other, "target_encoder": state, "predictor": {}, "epoch": 1}, tmp_path / "vitt.pt")
    clip = ClipShape(frames=8, stride=1, size=32, fps=4.0)
    assert_same(str(tmp_path / "vitt.pt"), theirs(model, skip_predictor=True), clip)


def by_hand(state: dict[str, Tensor], video_btchw: Tensor) -> list[Tensor]:
    """V-JEPA's encoder written out: a table of positions, biases on keys, exact GELU, a final norm."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def dense(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    kernel = state["patch_embed.proj.weight"]
    video = normalized(video_btchw).transpose(1, 2)
    x = F.conv3d(video, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[2:]).flatten(2).transpose(1, 2)
    x = x + state["pos_embed"]
    found = [x]
    for i in range(3):
        q, k, v = dense(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").chunk(3, dim=-1)
        x = x + dense(F.scaled_dot_product_attention(q, k, v), f"blocks.{i}.attn.proj")
        x = x + dense(F.gelu(dense(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")), f"blocks.{i}.mlp.fc2")
        found.append(x)
    return [*found[:3], norm(found[3], "norm")]


def vjepa() -> dict[str, Tensor]:
    """Weights of a V-JEPA of 8 x 2 x 2 tokens, one head."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"patch_embed.proj.weight": (64, 3, 2, 16, 16), "patch_embed.proj.bias": (64,), "pos_embed": (1, 32, 64)}
    for i in range(3):
        for name, shape in (
            *(
                ("norm1.weight", (64,)),
                ("norm1.bias", (64,)),
                ("attn.qkv.weight", (192, 64)),
                ("attn.qkv.bias", (192,)),
            ),
            *(
                ("attn.proj.weight", (64, 64)),
                ("attn.proj.bias", (64,)),
                ("norm2.weight", (64,)),
                ("norm2.bias", (64,)),
            ),
            *(
                ("mlp.fc1.weight", (96, 64)),
                ("mlp.fc1.bias", (96,)),
                ("mlp.fc2.weight", (64, 96)),
                ("mlp.fc2.bias", (64,)),
            ),
        ):
            shapes[f"blocks.{i}.{name}"] = shape
    shapes |= {"norm.weight": (64,), "norm.bias": (64,)}
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def test_vjepa_of_its_authors_reads_its_teacher(tmp_path: Path) -> None:
    state = vjepa()
    wrapped = {f"module.backbone.{name}": value for name, value in state.items()}
    other = {name: torch.zeros_like(value) for name, value in wrapped.items()}
    torch.save({"encoder": other, "target_encoder": wrapped, "opt": {}, "epoch": 3}, tmp_path / "vitt16.pth.tar")
    encoder = open_encoder(str(tmp_path / "vitt16.pth.tar"))
    assert encoder.clip == ClipShape(frames=16, stride=4, size=32)
    video = noise(frames=16)
    wanted = by_hand(state, video)
    found = encoder.forward_intermediates(video, ALL)
    assert max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)) < 1e-4
    assert random_like(encoder).width == 64


class Evil:
    """What a stranger's pickle can do."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("a stranger's code ran",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: {"model": {name: v for name, v in state.items() if name != "blocks.2.norm2.bias"}},
            "no tensor blocks.2.norm2.bias",
        ),
        (lambda state: {"model": state | {"blocks.1.gamma_1": torch.ones(64)}}, "unknown tensor blocks.1.gamma_1"),
        (lambda state: {"model": state | {"blocks.1.attn.q_bias": torch.ones(5)}}, r"blocks.1.attn.q_bias is \[5\]"),
        (lambda state: {"model": {"conv1.weight": torch.ones(3)}}, "not a VideoMAE, V-JEPA or V-JEPA 2"),
        (lambda state: state["norm.bias"], "not a VideoMAE, V-JEPA or V-JEPA 2"),
        (lambda state: {"model": state | {"patch_embed.proj.weight": torch.ones(64, 3, 16, 16)}}, "of a video model"),
        (lambda state: {"model": state, "extra": Evil()}, r"without running code .* \(Unsupported global[^.`]*\)$"),
        (
            lambda state: {"model": {n: v[:60] if n.startswith("patch_embed") else v for n, v in state.items()}},
            "number of heads",
        ),
    ],
)
def test_other_files_are_told_apart(
    change: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(change(videomae()[1]), tmp_path / "file.pth")
    with pytest.raises(LayerlockError, match=words) as error:
        open_encoder(str(tmp_path / "file.pth"), clip=CLIP)
    assert "file.pth" in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04", b"\x80\x02cos\nsystem\n"])
def test_files_that_are_no_checkpoint_are_errors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(LayerlockError, match=r"file\.pt: "):
        open_encoder(str(tmp_path / "file.pt"))


def test_clips_that_the_patches_do_not_divide_are_errors(tmp_path: Path) -> None:
    torch.save({"model": videomae()[1]}, tmp_path / "file.pth")
    with pytest.raises(LayerlockError, match=r"file\.pth"):
        open_encoder(str(tmp_path / "file.pth"), clip=replace(CLIP, frames=7))
    torch.save({"model": vjepa()}, tmp_path / "jepa.pth")
    with pytest.raises(LayerlockError, match="takes clips of 16 frames of 32 x 32 pixels"):
        open_encoder(str(tmp_path / "jepa.pth"), clip=replace(CLIP, size=64))
