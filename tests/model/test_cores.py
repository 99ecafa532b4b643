"""Clips read on all cores at once: the same features, the same errors, and nothing left changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from tiny import MODEL, video
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from layerlock.model.cores import clip_by_clip
from layerlock.model.encoder import ClipShape, Encoder


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random(MODEL, ClipShape(frames=8, stride=2, size=24))


def where_read(count: int) -> list[tuple[str, int]]:
    """The threads that each of so many clips was read on, and how many threads torch had there."""
    seen: dict[int, tuple[str, int]] = {}

    def read(clip: Tensor) -> list[Tensor]:
        assert clip.shape == (1, 2)
        assert not torch.is_grad_enabled()
        seen[int(clip[0, 0])] = (threading.current_thread().name, torch.get_num_threads())
        return [clip + 1, clip * 2]

    clips = torch.arange(2.0 * count, requires_grad=True).view(count, 2)
    more, twice = clip_by_clip(read, clips)
    assert torch.equal(more, clips + 1)
    assert torch.equal(twice, clips * 2)
    assert not more.requires_grad
    return [seen[2 * clip] for clip in range(count)]


def test_full_rounds_are_spread_and_the_rest_is_read_by_all_threads_together() -> None:
    here = (threading.current_thread().name, 3)
    places = where_read(8)
    assert all(name.startswith("layerlock-reader") and threads == 1 for name, threads in places[:6])
    assert places[6:] == [here] * 2
    assert where_read(2) == [here] * 2
    torch.set_num_threads(1)
    assert where_read(4) == [(here[0], 1)] * 4


def test_threads_of_torch_are_as_many_as_before_here_and_in_new_threads() -> None:
    found: list[int] = []
    where_read(3)
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert (torch.get_num_threads(), found) == (3, [3])


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_features_do_not_depend_on_the_number_of_threads(encoder: Encoder, compute: torch.dtype) -> None:
    encoder.prepare("cpu", compute)
    clips = video(6)
    spread = encoder.forward_intermediates(clips, [0, 2, 6])
    torch.set_num_threads(1)
    for ours, alone in zip(spread, encoder.forward_intermediates(clips, [0, 2, 6]), strict=True):
        assert torch.equal(ours, alone)


def test_what_holds_in_the_calling_thread_only_holds_for_every_clip(encoder: Encoder) -> None:
    def flops(clips: int) -> int:
        with FlopCounterMode(display=False) as counter:
            encoder(video(clips))
        return counter.get_total_flops()

    assert flops(6) == 6 * flops(1) > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert clip_by_clip(lambda clip: [clip @ clip.mT], torch.ones(6, 2, 2))[0].dtype == torch.bfloat16
    with torch.inference_mode():
        assert encoder(video(6)).shape[0] == 6


def test_an_error_in_one_clip_is_raised_and_the_next_batch_is_read() -> None:
    def read(clip: Tensor) -> list[Tensor]:
        if clip.item() == 4:
            raise ValueError("clip 4")
        return [clip]

    with pytest.raises(ValueError, match="clip 4"):
        clip_by_clip(read, torch.arange(6.0).view(6, 1))
    assert len(clip_by_clip(read, torch.zeros(6, 1))[0]) == 6
