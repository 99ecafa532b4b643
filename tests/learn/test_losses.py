"""The learner's losses and gradients against the same definitions written a second time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import Oracle
from tiny import DECODING, GRID, MASKING, MODEL, PIXEL_STAGE, learner, lock_stage, video

from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.targets import FeatureTarget
from layerlock.model.patches import patchify

INDEX = torch.tensor([5, 1_000_003])
MIXED = Stage(
    frozen=2, last=6, taps=(Tap(depth=4), *(Tap(depth=4, target=FeatureTarget((k,)), fraction=0.25) for k in (1, 2)))
)
LIVE = Stage(frozen=0, last=6, taps=(Tap(depth=4), Tap(depth=4, target=FeatureTarget((3,), live=True))))
THROUGH = Stage(
    frozen=0, last=6, taps=(Tap(depth=4), Tap(depth=4, target=FeatureTarget((3,), live=True, gradient=True)))
)
STAGES = {
    "pixels": PIXEL_STAGE,
    "pixels, frozen": Stage(frozen=2, last=6, taps=(Tap(depth=4),)),
    "latent": lock_stage(2),
    "latent, the whole encoder frozen": lock_stage(4),
    "latent below what is frozen": lock_stage(1, frozen=3),
    "subset": lock_stage(2, fraction=0.25),
    "subset of a full clip": lock_stage(2, fraction=0.25, full_clip=True),
    "several": lock_stage(1, 2, 3),
    "several on a subset": lock_stage(1, 2, fraction=0.25),
    "pixels and latents on a subset": MIXED,
    "live": LIVE,
    "live, gradients into the target": THROUGH,
}


def ready(stage: Stage) -> Learner:
    """A learner in `stage`, its heads too away from their first values."""
    made = learner(stage=stage)
    with torch.no_grad():
        for head in made.heads.parameters():
            head.add_(torch.randn(head.shape, generator=torch.Generator().manual_seed(2)), alpha=0.05)
    return made


@pytest.mark.parametrize("name", STAGES)
def test_losses_and_gradients_are_the_definitions(name: str) -> None:
    stage, clips = STAGES[name], video(2)
    made = ready(stage)
    oracle = Oracle(made)
    decode_all = any(tap.fraction == 1 for tap in stage.taps)
    wanted = {
        tap.target.name: sum(oracle.loss(clips[b], int(INDEX[b]), tap, decode_all) for b in range(2)) / 2
        for tap in stage.taps
    }
    found = made.step(clips, INDEX).losses
    assert found.keys() == wanted.keys()
    for target, value in wanted.items():
        assert float(found[target]) == pytest.approx(float(value.detach()), rel=1e-5), target
    sum(wanted.values()).backward()
    for parameter, value in made.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, parameter
            exact = oracle.w[parameter].grad
            assert exact is not None
            assert (value.grad - exact).abs().max() < 1e-4 * exact.abs().max() + 1e-7, parameter
        else:
            assert value.grad is None, parameter


def test_a_subset_pass_and_a_full_pass_have_different_targets() -> None:
    losses = [
        ready(lock_stage(2, fraction=0.25, full_clip=full)).step(video(2), INDEX).losses["h2"] for full in (False, True)
    ]
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.parametrize("name", STAGES)
def test_micro_batches_add_up_to_the_whole_batch(name: str) -> None:
    clips, index = video(4), torch.arange(4) + 7
    whole, parts = ready(STAGES[name]), ready(STAGES[name])
    total = whole.step(clips, index).losses
    halves = [parts.step(clips[i : i + 2], index[i : i + 2], scale=0.5).losses for i in (0, 2)]
    for target, value in total.items():
        assert torch.allclose((halves[0][target] + halves[1][target]) / 2, value, rtol=1e-5)
    for (parameter, a), b in zip(whole.live().items(), parts.live().values(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6), parameter


@pytest.mark.parametrize("name", STAGES)
def test_recomputing_activations_changes_no_gradient(name: str) -> None:
    plain, again = ready(STAGES[name]), ready(STAGES[name])
    again.recompute = True
    assert plain.step(video(2), INDEX).losses == again.step(video(2), INDEX).losses
    for (parameter, a), b in zip(plain.live().items(), again.live().values(), strict=True):
        assert torch.equal(a.grad, b.grad), parameter


def test_bfloat16_losses_stay_close_and_gradients_are_float32() -> None:
    for stage in (PIXEL_STAGE, lock_stage(2, fraction=0.25)):
        full, half = ready(stage), ready(stage)
        half.vit.compute = torch.bfloat16
        half.enter(stage)
        a, b = full.step(video(2), INDEX).losses, half.step(video(2), INDEX).losses
        for target, value in a.items():
            assert b[target].dtype == torch.float32
            assert float(b[target]) == pytest.approx(float(value), rel=0.03)
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in half.live().values())


def test_the_pixel_target_is_normalised_as_the_input_is() -> None:
    made = Learner(replace(MODEL, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)), GRID, MASKING, DECODING, PIXEL_STAGE)
    (group,) = made.groups(video(2), INDEX)
    pixels = patchify(video(2), MODEL.patch).float() / 255
    mean, std = (torch.tensor(x).repeat(128) for x in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    assert torch.allclose(group.predictions[0].target, (pixels - mean) / std, atol=1e-5)


def test_clips_in_bytes_and_in_fractions_give_the_same_loss() -> None:
    made = ready(PIXEL_STAGE)
    a, b = (made.step(clips, INDEX).losses["pixels"] for clips in (video(2), video(2).float() / 255))
    assert torch.allclose(a, b, rtol=1e-6)


def test_watching_adds_figures_and_changes_nothing() -> None:
    plain, watched = ready(lock_stage(2)), ready(lock_stage(2))
    a, b = plain.step(video(2), INDEX), watched.step(video(2), INDEX, watch=True)
    assert a.losses == b.losses
    assert a.features_nd is None
    assert b.features_nd is not None
    assert b.features_nd.shape == (2 * round(36 * MASKING.keep), 24)
    oracle = Oracle(watched)
    targets = torch.cat([oracle.latent(oracle.patches(clip), 2, list(range(36))) for clip in video(2)])
    variance = targets.detach().var(dim=0, unbiased=False).mean()
    assert float(b.target_variance["h2"]) == pytest.approx(float(variance), rel=1e-4)


def test_losses_at_several_depths_are_told_apart() -> None:
    stage = Stage(frozen=0, last=6, taps=(Tap(depth=2), Tap(depth=4)))
    made = Learner(MODEL, GRID, MASKING, DECODING, stage)
    losses = made.step(video(2), INDEX).losses
    assert len(losses) == 2
    assert len({float(value) for value in losses.values()}) == 2


def test_a_detached_tap_trains_its_own_stretch_of_blocks_alone() -> None:
    grads = []
    for taps in ((Tap(depth=2, detach=True),), (Tap(depth=2, detach=True), Tap(depth=4))):
        made = learner()
        made.enter(Stage(frozen=0, last=6, taps=taps))
        made.step(video(2), INDEX)
        grads.append([p.grad for p in made.vit.blocks[:2].parameters()])
        upper = [p.grad for p in made.vit.blocks[2:4].parameters()]
        assert all((g is not None) == (len(taps) == 2) for g in upper)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
