"""Models of transformers opened from their folders, against transformers' own outputs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_models import MEAN, STD, VIDEOMAE, VJEPA2, hub_model, noise, normalized
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from layerlock.encoders import AttentionEncoder, at_hand, open_encoder, random_like
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder

ALL = [0, 1, 2, 3]
KINDS = ["VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"]
VJEPA2_KINDS = ["VJEPA2Model", "VJEPA2ForVideoClassification"]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """No progress bars while folders are written."""
    logging = pytest.importorskip("transformers").utils.logging
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def saved(model: nn.Module, folder: Path) -> str:
    model.save_pretrained(folder)  # type: ignore[operator]
    return f"hf:{folder}"


def hidden_states(model: nn.Module, video_btchw: Tensor) -> list[Tensor]:
    """Their outputs after 0 .. L - 1 blocks and, last, what the backbone returns."""
    backbone = getattr(model, "videomae", getattr(model, "vjepa2", model))
    options = {"skip_predictor": True} if type(backbone).__name__ == "VJEPA2Model" else {}
    out = backbone(normalized(video_btchw), output_hidden_states=True, **options)
    return [*out.hidden_states[:3], out.last_hidden_state]


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    assert [x.shape for x in found] == [x.shape for x in wanted]
    assert all(a.std() > 0.3 and (a - b).abs().max() > 0.1 for a, b in zip(wanted[1:], wanted, strict=False))
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("pooling", [False, True], ids=["final norm", "no final norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_videomae_features_are_theirs_at_every_depth(kind: str, pooling: bool, tmp_path: Path) -> None:
    model = hub_model(kind, use_mean_pooling=pooling)
    encoder = open_encoder(saved(model, tmp_path))
    assert worst(encoder.forward_intermediates(noise(), ALL), hidden_states(model, noise())) < 1e-4
    assert encoder.clip == ClipShape(frames=8, stride=4, size=32)
    assert (encoder.name, encoder.grid, encoder.depth, encoder.width) == (f"hf:{tmp_path}", (4, 4, 4), 3, 24)


@pytest.mark.parametrize("kind", VJEPA2_KINDS)
def test_vjepa2_features_are_theirs_at_every_depth(kind: str, tmp_path: Path) -> None:
    model = hub_model(kind)
    encoder = open_encoder(saved(model, tmp_path))
    wanted = hidden_states(model, noise())
    assert worst(encoder.forward_intermediates(noise(), ALL), wanted) < 1e-4
    assert encoder.clip == ClipShape(frames=8, stride=1, fps=4.0, size=32)
    assert (encoder.name, encoder.grid, encoder.depth, encoder.width) == (f"hf:{tmp_path}", (4, 4, 4), 3, 28)
    fractions = noise().float().div(255).requires_grad_()
    shuffled = encoder.forward_intermediates(fractions, [3, 1, 3])
    assert worst([shuffled[1], shuffled[2]], [wanted[1], wanted[3]]) < 1e-4
    assert not any(x.requires_grad for x in shuffled)


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model"])
def test_attention_is_theirs_in_every_block(kind: str, tmp_path: Path) -> None:
    model = hub_model(kind, attn_implementation="eager")
    encoder = open_encoder(saved(model, tmp_path))
    assert isinstance(encoder, AttentionEncoder)
    options = {} if kind == "VideoMAEModel" else {"skip_predictor": True}
    theirs = model(normalized(noise()), output_attentions=True, **options).attentions
    features = encoder.forward_intermediates(noise(), ALL)
    for block, (x_bnd, wanted) in enumerate(zip(features, theirs, strict=False), 1):
        q, k = encoder.queries_and_keys(block, x_bnd)
        weight = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        assert weight.std() > 1e-3
        assert torch.allclose(weight, wanted, atol=1e-5)
    assert len(theirs) == block == encoder.depth


def test_vjepa2_takes_clips_of_any_length(tmp_path: Path) -> None:
    model = hub_model("VJEPA2Model")
    name, clip = saved(model, tmp_path), ClipShape(frames=4, stride=2, size=32)
    encoder = open_encoder(name, clip=clip)
    assert (encoder.clip, encoder.grid) == (clip, (2, 4, 4))
    found = encoder.forward_intermediates(noise(frames=4), ALL)
    assert worst(found, hidden_states(model, noise(frames=4))) < 1e-4
    with pytest.raises(LayerlockError, match="does not divide 5 frames"):
        open_encoder(name, clip=ClipShape(frames=5, stride=2, size=32))
    with pytest.raises(LayerlockError, match="any number of frames of 32 x 32 pixels, not of 4 frames of 64 x 64"):
        open_encoder(name, clip=ClipShape(frames=4, stride=2, size=64))
    with pytest.raises(LayerlockError, match="clips"):
        encoder.forward_intermediates(noise(frames=8), [1])


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model"])
def test_no_block_runs_that_is_not_asked_for(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder(saved(hub_model(kind), tmp_path))
    ran: list[int] = []
    for number, block in enumerate(encoder.vit.blocks if isinstance(encoder, Encoder) else encoder.model.layer):  # type: ignore[attr-defined]
        block.register_forward_hook(lambda *_, number=number: ran.append(number + 1))
    encoder.forward_intermediates(noise(1), [0])
    assert ran == []
    encoder.forward_intermediates(noise(1), [2, 1])
    assert ran == [1, 2]


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model"])
def test_bfloat16_is_close_and_its_features_come_in_it(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder(saved(hub_model(kind), tmp_path))
    full = encoder.forward_intermediates(noise(), [3])[0]
    half = encoder.prepare("cpu", torch.bfloat16).forward_intermediates(noise(), [3])[0]
    assert half.dtype == torch.bfloat16
    assert 0 < (half.float() - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model"])
def test_random_weights_have_the_shape_and_nothing_else(kind: str, tmp_path: Path) -> None:
    name = saved(hub_model(kind), tmp_path)
    trained, first = open_encoder(name), open_encoder(f"random:{name}", seed=1)
    again, other = random_like(trained, seed=1), random_like(trained, seed=2)
    assert (again.name, again.clip, again.grid, again.width) == (first.name, trained.clip, trained.grid, trained.width)
    a, b, c, d = (x.forward_intermediates(noise(1), [3])[0] for x in (first, again, other, trained))
    assert torch.equal(a, b)
    assert a.isfinite().all()
    assert all((a - x).abs().max() > 0.1 for x in (c, d))


def test_random_weights_of_vjepa2_are_spread_as_theirs(tmp_path: Path) -> None:
    wider = {"hidden_size": 192, "num_hidden_layers": 1}
    encoder = random_like(open_encoder(saved(hub_model("VJEPA2Model", **wider), tmp_path)), seed=1)
    theirs = pytest.importorskip("transformers").VJEPA2Model
    reference = theirs(theirs.config_class(**(VJEPA2 | wider))).encoder
    drawn = dict(encoder.model.named_parameters())  # type: ignore[attr-defined]
    for name, parameter in reference.named_parameters():
        assert drawn[name].mean().item() == pytest.approx(parameter.mean().item(), abs=1e-3), name
        assert drawn[name].std().item() == pytest.approx(parameter.std().item(), rel=0.1), name


@pytest.mark.parametrize("file", ["preprocessor_config.json", "video_preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model"])
def test_colours_are_those_of_the_preprocessor(kind: str, file: str, tmp_path: Path) -> None:
    model = hub_model(kind)
    name = saved(model, tmp_path)
    mean, std = (0.1, 0.5, 0.25), (0.5, 0.25, 1)
    (tmp_path / file).write_text(json.dumps({"image_mean": mean, "image_std": std}))
    options = {"skip_predictor": True} if kind == "VJEPA2Model" else {}
    wanted = model(normalized(noise(), mean, std), **options).last_hidden_state
    assert (open_encoder(name).forward_intermediates(noise(), [3])[0] - wanted).abs().max() < 1e-4
    (tmp_path / file).write_text(json.dumps({"do_normalize": False}))
    wanted = model(noise().float() / 255, **options).last_hidden_state
    assert (open_encoder(name).forward_intermediates(noise(), [3])[0] - wanted).abs().max() < 1e-4
    (tmp_path / file).write_text(json.dumps({"do_resize": False}))
    unsaid = ([0.5] * 3, [0.5] * 3) if kind == "VideoMAEModel" else (MEAN, STD)
    wanted = model(normalized(noise(), *unsaid), **options).last_hidden_state
    assert (open_encoder(name).forward_intermediates(noise(), [3])[0] - wanted).abs().max() < 1e-4
    for factor, settings in ((1 / 127.5, {"rescale_factor": 1 / 127.5}), (1.0, {"do_rescale": False})):
        (tmp_path / file).write_text(json.dumps({"image_mean": mean, "image_std": std, **settings}))
        wanted = model(normalized(noise().float() * 255 * factor, mean, std), **options).last_hidden_state
        assert (open_encoder(name).forward_intermediates(noise(), [3])[0] - wanted).abs().max() < 1e-4
    wrong = (
        ("image_mean", [0.5]),
        ("image_mean", [math.nan] * 3),
        ("image_std", [1, 1, 0]),
        ("rescale_factor", 0),
        ("rescale_factor", "1/255"),
        ("rescale_factor", True),
        ("rescale_factor", 10**400),
    )
    for field, value in wrong:
        (tmp_path / file).write_text(json.dumps({field: value}))
        with pytest.raises(LayerlockError, match=rf"{file}: {field}"):
            open_encoder(name)


@pytest.mark.parametrize("kind", ["VideoMAEForPreTraining", "VJEPA2Model"])
def test_weights_in_several_files_and_in_half_precision(kind: str, tmp_path: Path) -> None:
    model = hub_model(kind).bfloat16()
    model.save_pretrained(tmp_path, max_shard_size="20KB")  # type: ignore[operator]
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    found = open_encoder(f"hf:{tmp_path}").forward_intermediates(noise(), ALL)
    assert worst(found, hidden_states(model.float(), noise())) < 1e-4
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(LayerlockError, match=r"index\.json: weight_map"):
        open_encoder(f"hf:{tmp_path}")


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    name = saved(hub_model("VideoMAEModel"), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LayerlockError, match=r"no model\.safetensors; .* never read"):
        open_encoder(name)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("VideoMAEForPreTraining", "videomae.encoder.layer.1."), ("VJEPA2Model", "encoder.layer.1.")],
)
def test_the_tensor_that_is_off_is_named(kind: str, key: str, tmp_path: Path) -> None:
    name, file = saved(hub_model(kind), tmp_path), tmp_path / "model.safetensors"
    weights = load_file(file)
    key = next(name for name in weights if name.startswith(key) and name.endswith("weight") and weights[name].ndim == 2)
    short = key if kind.startswith("VideoMAE") else key.removeprefix("encoder.")
    wanted = list(weights[key].shape)
    save_file({n: x for n, x in weights.items() if n != key}, file)
    with pytest.raises(LayerlockError, match=f"no tensor {short}$"):
        open_encoder(name)
    save_file(weights | {key: torch.zeros(3, 5)}, file)
    with pytest.raises(LayerlockError, match=rf"{short} is \[3, 5\], wanted \[{wanted[0]}, {wanted[1]}\]"):
        open_encoder(name)
    save_file(weights | {"other.weight": torch.zeros(3)}, file)
    with pytest.raises(LayerlockError, match=r"unknown tensor .*other\.weight"):
        open_encoder(name)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(LayerlockError, match=r"model\.safetensors: not a readable safetensors file"):
        open_encoder(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "model_type None is none of videomae, vjepa2"),
        ('{"model_type": "llama"}', "'llama'"),
        ('{"model_type": "videomae"}', "no field"),
        (json.dumps(VIDEOMAE | {"model_type": "videomae", "num_channels": 3}), "no field"),
        ('{"model_type": "vjepa2", "crop_size": "big"}', "not the settings of a V-JEPA 2"),
        (json.dumps(VJEPA2 | {"model_type": "vjepa2", "in_chans": 1}), "in_chans 1"),
        (json.dumps(VJEPA2 | {"model_type": "vjepa2", "frames_per_clip": 7}), "does not divide 7 frames"),
        (json.dumps(VJEPA2 | {"model_type": "vjepa2", "frames_per_clip": 0}), "clip.frames: 0 is not a positive"),
        (json.dumps(VJEPA2 | {"model_type": "vjepa2", "crop_size": -32}), "clip.size: -32 is not a positive"),
        (json.dumps(VJEPA2 | {"model_type": "vjepa2", "hidden_size": None}), r"^[^\n]*V-JEPA 2[^\n]*$"),
    ],
)
def test_settings_that_are_not_a_models_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(LayerlockError, match=message):
        open_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (32, 16)}, "32 x 16 pixels; only square"),
        ({"image_size": 30}, "does not divide 30 height"),
        ({"num_attention_heads": 5}, "5 heads do not divide"),
        ({"hidden_size": "wide"}, "config"),
        ({"layer_norm_eps": 0.0}, "norm_eps"),
    ],
)
def test_a_videomae_that_cannot_be_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    name = saved(hub_model("VideoMAEModel"), tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | changes))
    with pytest.raises(LayerlockError, match=message):
        open_encoder(name)


def test_other_clips_than_videomaes_are_refused_and_another_stride_is_not(tmp_path: Path) -> None:
    name = saved(hub_model("VideoMAEModel"), tmp_path)
    clip = ClipShape(frames=8, stride=7, size=32)
    assert open_encoder(name, clip=clip).clip == clip
    with pytest.raises(LayerlockError, match="clips of 8 frames of 32 x 32 pixels, not of 16 frames"):
        open_encoder(name, clip=ClipShape(frames=16, stride=7, size=32))


def test_what_is_no_folder_comes_from_the_hub_without_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(hub_model("VideoMAEModel"), tmp_path)
    asked: list[tuple[str, str | None, list[str]]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert open_encoder("hf:somebody/videomae").width == 24
    assert open_encoder("hf:somebody/videomae@0123abc").name == "hf:somebody/videomae@0123abc"
    assert [(name, revision) for name, revision, _ in asked] == [
        ("somebody/videomae", None),
        ("somebody/videomae", "0123abc"),
    ]
    assert all(pattern.endswith((".json", ".safetensors")) for _, _, patterns in asked for pattern in patterns)
    monkeypatch.undo()
    with pytest.raises(LayerlockError, match="no such folder"):
        open_encoder(f"hf:{tmp_path}/not/there")


def test_a_revision_is_at_hand_where_it_was_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    for kept in ("0123abc", "main"):
        monkeypatch.setattr(
            hub,
            "try_to_load_from_cache",
            lambda name, file, *, revision, kept=kept: file if (revision or "main") == kept else None,
        )
        assert at_hand("hf:somebody/videomae@0123abc") == (kept == "0123abc")
        assert at_hand("hf:somebody/videomae") == (kept == "main")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("videomae.pth", r"a checkpoint file of torch, .* by the path alone, .*videomae\.pth$"),
        ("vjepa.pth.tar", r"a checkpoint file of torch, .* by the path alone, .*vjepa\.pth\.tar$"),
        ("lost.pt", "a checkpoint file of torch, .* no such file is here$"),
        ("weights.npz", "a file, where a folder or a repository"),
    ],
)
def test_a_file_is_said_to_be_one(name: str, words: str, tmp_path: Path) -> None:
    if name != "lost.pt":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(LayerlockError, match=words):
        open_encoder(f"hf:{tmp_path / name}")


def test_without_transformers_videomae_opens_and_the_others_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videomae, vjepa2 = (
        saved(hub_model(kind), tmp_path / kind) for kind in ("VideoMAEForPreTraining", "VJEPA2ForVideoClassification")
    )
    for package in ("transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    assert open_encoder(videomae).depth == 3
    for name in (vjepa2, "hf:somebody/videomae"):
        with pytest.raises(LayerlockError, match=r"layerlock\[transformers\]"):
            open_encoder(name)
