"""Batches shared out over the cores of a CPU: the step of the whole batch, whatever the method."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import layerlock
from layerlock.config import Config
from layerlock.data import Batch
from layerlock.learn.learner import Learner
from layerlock.learn.plan import timeline
from layerlock.learn.shares import shared_step
from layerlock.model import cores
from layerlock.recipes import RECIPES
from layerlock.train.loop import build_learner

CPU = torch.device("cpu")
NAMES = [name for name in RECIPES if name.endswith("-nano") and name not in ("distill-nano", "static-teacher-nano")]
"""all methods that need no other encoder"""


@pytest.fixture(autouse=True)
def three_threads(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    cores._readers.cache_clear()


def learner(config: Config) -> Learner:
    """In the last stage of its plan; every parameter away from its first value."""
    config = replace(config, run=replace(config.run, precision="fp32"))
    made = build_learner(config, CPU, timeline(config.check(None), config.steps)[-1][1])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return made


def batch(config: Config, clips: int = 7) -> Batch:
    """Noise; samples 20 .. 26, which are not all of one mask group."""
    frames, size = config.clip.frames, config.clip.size
    generator = torch.Generator().manual_seed(1)
    return Batch(
        index_b=torch.arange(20, 20 + clips),
        names=tuple(map(str, range(clips))),
        video_btchw=torch.randint(0, 256, (clips, frames, 3, size, size), generator=generator, dtype=torch.uint8),
        crop_b4=torch.zeros(clips, 4),
        flip_b=torch.zeros(clips, dtype=torch.bool),
        size=size,
    )


def shown(part: Batch) -> Tensor:
    return part.video_btchw


def gradients(made: Learner) -> dict[str, Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in made.named_parameters() if parameter.grad is not None}
    made.zero_grad()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_the_whole_batch(name: str) -> None:
    config = layerlock.recipe(name)
    made, clips = learner(config), batch(config)
    whole = made.step(shown(clips), clips.index_b, scale=0.5).losses
    wanted = gradients(made)
    shared = shared_step(made, clips, shown, scale=0.5)
    assert shared is not None
    found = gradients(made)
    assert shared.losses.keys() == whole.keys()
    for label, loss in whole.items():
        torch.testing.assert_close(shared.losses[label], loss, rtol=1e-5, atol=1e-6)
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        error = (found[parameter] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, parameter


def test_the_bits_are_the_same_each_time_and_gradients_add_up() -> None:
    config = layerlock.recipe("blockwise-nano")  # several losses, each with its own backward
    made, clips = learner(config), batch(config)
    seen: list[dict[str, Tensor]] = []
    for _ in range(5):
        shared_step(made, clips, shown)
        seen.append(gradients(made))
    assert all(torch.equal(seen[0][name], again[name]) for again in seen[1:] for name in seen[0])
    shared_step(made, clips, shown)
    shared_step(made, clips, shown)
    for name, gradient in gradients(made).items():
        torch.testing.assert_close(gradient, 2 * seen[0][name])


def test_each_thread_has_a_share_of_the_clips_and_one_thread_of_torch() -> None:
    config, seen = layerlock.recipe("mae-nano"), []

    def watched(part: Batch) -> Tensor:
        seen.append((tuple(part.index_b.tolist()), threading.current_thread().name, torch.get_num_threads()))
        return part.video_btchw

    assert shared_step(learner(config), batch(config), watched) is not None
    assert sorted(indices for indices, _, _ in seen) == [(20, 21), (22, 23), (24, 25, 26)]
    assert len({name for _, name, _ in seen}) == 3
    assert {threads for _, _, threads in seen} == {1}


def test_what_a_share_fails_with_is_the_error_of_the_step() -> None:
    def fails(part: Batch) -> Tensor:
        raise MemoryError(f"no memory for {part.names[0]}")

    config = layerlock.recipe("mae-nano")
    with pytest.raises(MemoryError, match="no memory for 0"):
        shared_step(learner(config), batch(config), fails)


@pytest.mark.parametrize(
    "why", ["one thread", "fewer clips than threads", "fewer cores than threads", "large", "compiled", "motion"]
)
def test_a_batch_is_not_shared_out_where_that_is_no_gain_or_another_loss(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = layerlock.recipe("mae-nano")
    made, clips = learner(config), batch(config, clips=2 if why == "fewer clips than threads" else 7)
    if why == "one thread":
        torch.set_num_threads(1)
    elif why == "fewer cores than threads":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    elif why == "large":
        monkeypatch.setattr("layerlock.learn.shares.MOST_BYTES", 1_000_000)
    elif why == "compiled":
        made.compiled = True
    elif why == "motion":
        made.stage = replace(made.stage, taps=tuple(replace(tap, motion_weight=0.5) for tap in made.stage.taps))
    assert shared_step(made, clips, shown) is None
    assert not gradients(made)
