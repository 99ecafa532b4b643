"""Encoders by name: folders of ours, random weights, 4DS checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import FIXTURES, MODEL, video

from layerlock import draws
from layerlock.encoders import open_encoder, random_like
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.vit import ViT, initialize

CLIP = ClipShape(frames=8, stride=2, size=24)
FOURDS = f"4ds:{FIXTURES / '4ds_checkpoint.npz'}"


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random(MODEL, CLIP, seed=4)


@pytest.mark.parametrize("inside", [".", "encoder"], ids=["encoder folder", "run folder"])
def test_a_folder_of_ours_opens_as_what_was_saved(encoder: Encoder, inside: str, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / inside)
    found = open_encoder(str(tmp_path))
    assert (found.name, found.clip) == (str(tmp_path), CLIP)
    assert torch.equal(found.forward_intermediates(video(2), [4])[0], encoder(video(2), 4))
    slower = ClipShape(frames=8, stride=1, fps=5.0, size=24)
    assert open_encoder(str(tmp_path), clip=slower).clip == slower
    with pytest.raises(LayerlockError, match="8 frames of 24 x 24 pixels, not of 8 frames of 32 x 32"):
        open_encoder(str(tmp_path), clip=ClipShape(frames=8, stride=2, size=32))


def test_random_weights_in_the_shape_of_a_folder(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    found = open_encoder(f"random:{tmp_path}", seed=9)
    wanted = ViT(MODEL, (4, 3, 3))
    initialize(wanted, draws.generator(9, "weights"))
    assert isinstance(found, Encoder)
    assert all(torch.equal(a, b) for a, b in zip(found.vit.parameters(), wanted.parameters(), strict=True))
    assert (found.name, found.clip) == (f"random:{tmp_path}", CLIP)
    other = random_like(encoder, seed=8).forward_intermediates(video(1), [6])[0]
    assert not torch.allclose(found.forward_intermediates(video(1), [6])[0], other, atol=1e-2)


def test_what_has_no_weights_has_no_random_ones() -> None:
    with pytest.raises(LayerlockError, match="pixels: has no weights"):
        random_like(SimpleNamespace(name="pixels"))  # type: ignore[arg-type]


def test_a_size_by_name_takes_the_clips_it_is_given() -> None:
    found = open_encoder("random:tiny", clip=ClipShape(frames=3, stride=5, size=24), seed=1)
    assert isinstance(found, Encoder)
    assert (found.depth, found.width, found.grid) == (10, 192, (3, 3, 3)), "patches of 1x8x8"
    assert found.forward_intermediates(torch.rand(1, 3, 3, 24, 24), [10])[0].shape == (1, 27, 192)
    paper = open_encoder("random:tiny")
    assert (paper.clip, paper.grid) == (ClipShape(frames=16, stride=2, size=224), (8, 14, 14))
    with pytest.raises(LayerlockError, match=r"clip\.frames: 0"):
        open_encoder("random:tiny", clip=ClipShape(frames=0, stride=2, size=24))


def test_no_block_runs_that_is_not_asked_for(encoder: Encoder) -> None:
    ran: list[int] = []
    for number, block in enumerate(encoder.vit.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number + 1))
    encoder.forward_intermediates(video(1), [3, 0, 1])
    assert ran == [1, 2, 3]


def test_a_clip_has_the_same_features_in_any_batch_and_never_a_graph(encoder: Encoder) -> None:
    clips = video(3).float().div(255).requires_grad_()
    together = encoder.forward_intermediates(clips, [0, 6])
    for number in range(3):
        alone = encoder.forward_intermediates(clips[number : number + 1], [0, 6])
        assert all(torch.equal(a[number], b[0]) for a, b in zip(together, alone, strict=True))
    assert not any(x.requires_grad for x in together)
    assert [x.shape for x in encoder.forward_intermediates(clips[:0], [2])] == [(0, 36, 24)]


def test_bfloat16_holds_matrices_in_it_and_norms_in_float32(encoder: Encoder) -> None:
    full = encoder(video(2), 6)
    half = encoder.prepare("cpu", torch.bfloat16)(video(2), 6)
    assert half.dtype == torch.bfloat16
    assert {name.split(".")[-2]: p.dtype for name, p in encoder.named_parameters()} == {
        name: torch.float32 if "norm" in name else torch.bfloat16
        for name in ("embed", "norm1", "qkv", "proj", "norm2", "fc1", "fc2")
    }
    assert 0 < (half.float() - full).norm() < 0.05 * full.norm()


def test_4ds_features_are_the_references() -> None:
    with np.load(FIXTURES / "4ds_features.npz") as reference:
        clips = torch.from_numpy(reference["video_bthwc"]).permute(0, 1, 4, 2, 3)
        wanted = [torch.from_numpy(reference[f"features_after_{depth}_blocks"]) for depth in range(4)]
    found = open_encoder(FOURDS)
    assert (found.clip, found.grid, found.name) == (ClipShape(frames=8, stride=2, size=32), (4, 2, 2), FOURDS)
    features = found.forward_intermediates(clips, range(4))
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(features, wanted, strict=True))
    assert not any(x.requires_grad for x in features)


def less(arrays: dict[str, np.ndarray]) -> None:
    del arrays["params/processor/layers_2/mlp_norm/scale"]


def more(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/extra/scale"] = np.zeros(3, np.float32)


def narrower(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/processor/layers_1/mlp/dense_in/kernel"] = np.zeros((64, 255), np.float32)


def words(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/processor/layers_1/mlp_norm/bias"] = np.full(64, "0.5")


def flat(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/processor/layers_3/attention/out/kernel"] = np.zeros((), np.float32)


def oblong(arrays: dict[str, np.ndarray]) -> None:
    arrays["params/encoder/posenc/embeddings"] = np.zeros((4, 2, 3, 64), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (less, "no key params/processor/layers_2/mlp_norm/scale"),
        (more, "unknown key params/extra/scale"),
        (narrower, r"layers_1/mlp/dense_in/kernel is \(64, 255\), wanted \(64, 256\)"),
        (words, "mlp_norm/bias is <U3, wanted floating point"),
        (flat, r"layers_3/attention/out/kernel is \(\), wanted \(4, 16, 64\)"),
        (oblong, "32 x 48 pixels; only square"),
    ],
)
def test_a_4ds_key_that_is_off_is_named(
    change: Callable[[dict[str, np.ndarray]], None], message: str, tmp_path: Path
) -> None:
    with np.load(FIXTURES / "4ds_checkpoint.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(tmp_path / "changed.npz", **arrays)
    with pytest.raises(LayerlockError, match=message):
        open_encoder(f"4ds:{tmp_path / 'changed.npz'}")


def test_a_4ds_file_cut_off_or_of_one_array_is_named(tmp_path: Path) -> None:
    whole = (FIXTURES / "4ds_checkpoint.npz").read_bytes()
    single = BytesIO()
    np.save(single, np.zeros(3))
    for content in (b"", whole[:1000], whole[:-10], single.getvalue()):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(LayerlockError, match=r"cut\.npz"):
            open_encoder(f"4ds:{tmp_path / 'cut.npz'}")


@pytest.mark.parametrize("name", ["nowhere", "foo:bar", "random:Q", "random", "hf", "", "random:", "4ds:", "hf:"])
def test_names_of_nothing_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LayerlockError):
        open_encoder(name)


def test_an_unknown_kind_is_told_which_there_are() -> None:
    with pytest.raises(LayerlockError, match=r"'foo:bar' is no encoder.*random:SIZE.*hf:ORG/NAME, hf:FOLDER, 4ds:FILE"):
        open_encoder("foo:bar")


def test_files_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LayerlockError, match="no encoder here"):
        open_encoder(str(tmp_path / "file"))
    (tmp_path / "config.json").write_text('{"model_type": "videomae"}')
    with pytest.raises(LayerlockError, match=r"config\.json: not the config of an encoder of ours"):
        open_encoder(str(tmp_path))


def test_random_weights_of_a_4ds_checkpoint_keep_its_learned_positions_random() -> None:
    found, trained = open_encoder(f"random:{FOURDS}"), open_encoder(FOURDS)
    assert isinstance(found, Encoder)
    assert isinstance(trained, Encoder)
    assert found.vit.config == trained.vit.config
    assert found.vit.position is not None
    assert found.vit.position.std().item() == pytest.approx(0.02, rel=0.1)
