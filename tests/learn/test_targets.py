"""Targets by themselves, and the networks that compute features."""

from __future__ import annotations

import itertools
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from scipy.fft import dct
from tiny import FIXTURES, MODEL
from torch.nn import functional as F

from layerlock.encoders import FrozenEncoder, open_encoder
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Learner, head_name
from layerlock.learn.masking import RandomMasking
from layerlock.learn.networks import Foreign, fingerprints, foreign_problems, known_shape
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.targets import LAST, FeatureTarget, PatchTarget, change_weights
from layerlock.model.cost import encoder_flops
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.patches import gather_tokens, patchify
from layerlock.model.vit import ViT, ViTConfig

FOURDS = f"4ds:{FIXTURES / '4ds_checkpoint.npz'}"
SHAPE = ViTConfig(width=24, depth=4, mlp=32, heads=2, patch=(4, 8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def clips(frames: int = 8, size: int = 32, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (batch, frames, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", ["pixels", "normalized", "motion"])
def test_a_patch_target_can_be_turned_back_into_pixels(kind: str) -> None:
    vit, target = ViT(SHAPE, (2, 4, 4)), PatchTarget(kind)  # type: ignore[arg-type]
    patches = patchify(clips(), SHAPE.patch)
    value = target.of(patches, vit)
    assert value.dtype == torch.float32
    assert value.shape == patches.shape
    shown = target.pixels(value, patches, SHAPE)
    torch.testing.assert_close(shown, patches.float() / 255, atol=2e-5, rtol=0)


def test_motion_is_the_cosine_transform_of_a_tubelets_frames() -> None:
    vit = ViT(SHAPE, (2, 4, 4))
    patches = patchify(clips(), SHAPE.patch)
    found = PatchTarget("motion").of(patches, vit).unflatten(-1, (4, -1))
    wanted = dct(vit.normalize(patches).unflatten(-1, (4, -1)).numpy(), axis=2, norm="ortho")
    np.testing.assert_allclose(found[:, :, 0].numpy(), 0.6 * wanted[:, :, 0], atol=1e-5)
    np.testing.assert_allclose(found[:, :, 1:].numpy(), 3 * wanted[:, :, 1:], atol=1e-5)
    still = clips()[:, :1].expand(-1, 8, -1, -1, -1)
    assert (
        PatchTarget("motion").of(patchify(still, SHAPE.patch), vit).unflatten(-1, (4, -1))[:, :, 1:].abs().max() < 1e-5
    )


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_patches_weigh_by_how_much_they_change(share: float) -> None:
    video = clips()
    video[0, :, :, :8, :8] = video[0, :1, :, :8, :8]  # one place that never changes
    patches = patchify(video, SHAPE.patch)
    found = change_weights(patches, 4, share).numpy()
    change = np.zeros(found.shape)
    for clip, token in np.ndindex(change.shape):
        frames = patches[clip, token].numpy().reshape(4, -1) / 255
        change[clip, token] = np.mean([np.mean((b - a) ** 2) for a, b in itertools.pairwise(frames)])
    np.testing.assert_allclose(found, 1 - share + share * change / change.mean(), rtol=1e-4, atol=1e-6)
    assert found[0, 0] == found[0, 16] == pytest.approx(1 - share, abs=1e-6), "the place that never changes"
    assert found.mean() == pytest.approx(1)
    torch.testing.assert_close(change_weights(patches.float() / 255, 4, share), torch.from_numpy(found))


def test_where_nothing_changes_all_patches_weigh_the_same() -> None:
    still = patchify(clips()[:, :1].expand(-1, 8, -1, -1, -1), SHAPE.patch)
    torch.testing.assert_close(change_weights(still, 4, 0.7), torch.ones(2, 32))


@pytest.mark.parametrize("masked", [True, False])
def test_a_loss_by_motion_is_the_mean_of_weighted_squares(masked: bool) -> None:
    masking = RandomMasking(keep=0.25, predict=0.5)
    found = {}
    for weight in (0.0, 0.8):
        stage = Stage(frozen=0, last=4, taps=(Tap(depth=3, masked=masked, motion_weight=weight),))
        made = Learner(SHAPE, (2, 4, 4), masking, BackboneDecoding(blocks=1), stage, seed=1)
        (prediction,) = next(made.groups(clips(), torch.arange(2))).predictions
        patches = patchify(clips(), SHAPE.patch)
        if prediction.positions_bq is not None:
            patches = gather_tokens(patches, prediction.positions_bq)
        square_bq = (prediction.predicted - prediction.target).square().mean(-1)
        wanted = (square_bq * change_weights(patches, 4, weight)).mean()
        found[weight] = made.step(clips(), torch.arange(2)).losses["pixels"]
        torch.testing.assert_close(found[weight], wanted.detach())
    assert found[0.0] != found[0.8]


def test_several_blocks_are_standardised_and_averaged() -> None:
    a, b = torch.randn(2, 5, 8) * 3, torch.randn(2, 5, 8) + 4
    target = FeatureTarget((1, 3))
    torch.testing.assert_close(target.of([a, b]), (F.layer_norm(a, (8,)) + F.layer_norm(b, (8,))) / 2)
    assert target.sources == (("model", 1), ("model", 3))
    assert target.name == "h1_3"
    assert torch.equal(FeatureTarget((1,)).of([a]), a)
    assert torch.equal(FeatureTarget((1,), normalized=True).of([a]), F.layer_norm(a, (8,)))


def distilled(block: int, **tap: object) -> Stage:
    target = FeatureTarget((block,), FOURDS)
    return Stage(frozen=0, last=4, taps=(Tap(depth=3, target=target, **tap),))  # type: ignore[arg-type]


def learner(grid: tuple[int, int, int], model: ViTConfig, stage: Stage) -> Learner:
    return Learner(model, grid, RandomMasking(keep=0.25), BackboneDecoding(blocks=1), stage, seed=1)


def test_features_of_a_frozen_encoder_are_predicted() -> None:
    encoder = open_encoder(FOURDS)
    model = replace(SHAPE, patch=(2, 16, 16))
    made = learner(encoder.grid, model, distilled(2))
    video, index = clips(encoder.clip.frames, encoder.clip.size), torch.arange(2)
    (group,) = made.groups(video, index)
    (prediction,) = group.predictions
    assert prediction.predicted.shape == (2, math.prod(encoder.grid), encoder.width)
    wanted = encoder.forward_intermediates(video, [2])[0]
    torch.testing.assert_close(prediction.target, wanted, atol=1e-5, rtol=1e-5)
    made.step(video, index)
    assert not any("e2" in name and "head" not in name for name in made.state()), "no weight of it is in a checkpoint"
    assert {name for name in made.state() if "heads" in name} == {
        f"heads.{head_name(distilled(2).taps[0])}.{p}" for p in ("weight", "bias")
    }


def test_a_subset_and_another_grid_take_the_same_features_resampled() -> None:
    encoder = open_encoder(FOURDS)
    model = replace(SHAPE, patch=(2, 8, 8))
    made = learner((4, 8, 8), model, distilled(1))  # clips of 64 pixels: they are made as large as the encoder's
    video, index = clips(8, 64), torch.arange(2)
    (whole,) = next(made.groups(video, index)).predictions
    assert whole.target.shape == (2, 256, encoder.width)
    small = F.interpolate(video.flatten(0, 1).float() / 255, size=(32, 32), mode="bilinear", antialias=True)
    own = encoder.forward_intermediates(small.unflatten(0, (2, 8)), [1])[0]
    grid = own.transpose(1, 2).unflatten(2, encoder.grid)
    wanted = F.interpolate(grid, size=(4, 8, 8), mode="trilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(whole.target, wanted, atol=1e-5, rtol=1e-5)
    made.enter(distilled(1, fraction=0.25))
    (part,) = next(made.groups(video, index)).predictions
    assert part.positions_bq is not None
    for clip in range(2):
        torch.testing.assert_close(part.target[clip], whole.target[clip, part.positions_bq[clip]])


def test_a_foreign_networks_cost_and_identity_are_its_own(tmp_path: Path) -> None:
    encoder = open_encoder(FOURDS)
    assert isinstance(encoder, Encoder)
    shape = known_shape(FOURDS, 8)
    assert shape is not None
    assert shape.flops((1, 2)) == encoder_flops(encoder.vit.config, encoder.vit.tokens, 2)
    assert shape.flops((2, LAST)) == encoder_flops(encoder.vit.config, encoder.vit.tokens, 4)
    assert fingerprints({"model", "teacher", FOURDS}, 8).keys() == {FOURDS}
    other = Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=16), seed=3)
    other.save_pretrained(tmp_path)
    assert fingerprints({str(tmp_path)}, 8)[str(tmp_path)] != fingerprints({FOURDS}, 8)[FOURDS]


def test_the_last_block_is_whichever_that_is() -> None:
    encoder = open_encoder(FOURDS)
    target = FeatureTarget(network=FOURDS, normalized=True)
    stage = Stage(frozen=0, last=4, taps=(Tap(depth=3, target=target, error="smooth"),))
    made = learner(encoder.grid, replace(SHAPE, patch=(2, 16, 16)), stage)
    video = clips(encoder.clip.frames, encoder.clip.size)
    (prediction,) = next(made.groups(video, torch.arange(2))).predictions
    last = encoder.forward_intermediates(video, [encoder.depth])[0]
    torch.testing.assert_close(prediction.target, F.layer_norm(last, last.shape[-1:]), atol=1e-5, rtol=1e-5)
    off = (prediction.predicted - prediction.target).abs()
    wanted = torch.where(off < 1, off.square() / 2, off - 0.5).mean()
    torch.testing.assert_close(prediction.loss(), wanted)
    assert target.name == "e_last"
    assert FeatureTarget().problems(), "of the model blocks are named"


def test_another_network_has_another_head(tmp_path: Path) -> None:
    Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=16), seed=3).save_pretrained(tmp_path)
    made = learner(open_encoder(FOURDS).grid, replace(SHAPE, patch=(2, 16, 16)), distilled(2))
    first = next(iter(made.heads.values()))
    made.enter(distilled(2))
    assert next(iter(made.heads.values())) is first
    made.enter(Stage(frozen=0, last=4, taps=(Tap(depth=3, target=FeatureTarget((2,), str(tmp_path))),)))
    assert next(iter(made.heads.values())).out_features == MODEL.width != first.out_features


def test_a_network_computes_as_it_did_whatever_was_computed_in_before(tmp_path: Path) -> None:
    """A run in bfloat16 rounds the weights that it holds, not those of the next run in this process."""
    Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=3).save_pretrained(tmp_path)
    video, name = clips(8, 24), str(tmp_path)

    def found(compute: torch.dtype) -> torch.Tensor:
        return Foreign(name, 8, (4, 3, 3), compute).features(video, video, [2], None)[2]

    before, marks = found(torch.float32), fingerprints([name], 8)
    assert not torch.equal(found(torch.bfloat16).float(), before)
    assert torch.equal(found(torch.float32), before)
    assert fingerprints([name], 8) == marks
    Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=4).save_pretrained(tmp_path)
    assert fingerprints([name], 8) != marks, "trained again, it is another"
    assert not torch.equal(found(torch.float32), before)


def test_an_encoder_is_opened_once_for_all_threads_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, opened, video, threads = Barrier(4), [], clips(8, 16), ThreadPoolExecutor(4)

    def slowly(name: str, frames: int) -> FrozenEncoder:
        opened.append(name)
        time.sleep(0.05)
        return open_encoder(name)

    monkeypatch.setattr("layerlock.learn.networks.open_frozen", slowly)
    network = Foreign(FOURDS, 8, (4, 1, 1), torch.float32)

    def ask(_: int) -> torch.Tensor:
        seen.wait()
        return network.features(video, video, [2], None)[2]

    with threads:
        first, *others = threads.map(ask, range(4))
    assert opened == [FOURDS]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("network", "block", "frames", "words"),
    [
        (FOURDS, 5, 8, "has 4 blocks, no block 5"),
        (FOURDS, 1, 16, r"takes clips of 8 frames .* not of 16 .*; set clip\.frames"),
        ("hf:MCG-NJU/videomae-base", 13, 16, "has 12 blocks, no block 13"),
        ("hf:MCG-NJU/videomae-base", 12, 32, "takes clips of 16 frames, not of 32"),
    ],
)
def test_networks_that_cannot_be_asked_are_problems(network: str, block: int, frames: int, words: str) -> None:
    (problem,) = foreign_problems(network, (block,), frames)
    assert network.removeprefix("4ds:") in problem
    assert re.search(words, problem)
    assert not foreign_problems(FOURDS, (4, LAST), 8)


def test_networks_that_are_not_here_are_problems_where_they_are_wanted() -> None:
    assert not foreign_problems("nowhere/at/all", (1,), 8)
    (problem,) = foreign_problems("nowhere/at/all", (1,), 8, fetch=True)
    assert "'nowhere/at/all' is no encoder" in problem
