"""Clips read on all cores at once: the same features, the same errors, and nothing left changed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from tiny import MODEL, Calls, video
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from layerlock.model import cores
from layerlock.model.cores import clip_by_clip
from layerlock.model.encoder import ClipShape, Encoder


@pytest.fixture(autouse=True)
def three_threads(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    cores._readers.cache_clear()


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


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    return found[0]


def test_full_rounds_are_spread_and_the_rest_is_read_by_all_threads_together() -> None:
    here = (threading.current_thread().name, 3)
    places = where_read(8)
    assert all(name.startswith("layerlock-reader") and threads == 1 for name, threads in places[:6])
    assert places[6:] == [here] * 2
    assert where_read(2) == [here] * 2
    torch.set_num_threads(1)
    assert where_read(4) == [(here[0], 1)] * 4


def test_as_many_clips_as_threads_are_read_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=60)

    def read(clip: Tensor) -> list[Tensor]:
        together.wait()
        return [clip]

    assert len(clip_by_clip(read, torch.zeros(6, 1))[0]) == 6


def test_threads_of_torch_are_as_many_as_before_here_and_in_new_threads() -> None:
    where_read(3)
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)


def test_a_thread_that_is_bound_to_one_core_spreads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert where_read(3) == [(threading.current_thread().name, 3)] * 3


def test_where_no_thread_is_to_be_had_that_is_the_error_and_none_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    begun: list[threading.Thread] = []

    def second_fails(thread: threading.Thread) -> None:
        if thread.name.endswith("_1"):
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        where_read(3)
    monkeypatch.undo()
    assert [thread.is_alive() for thread in begun] == [False]
    assert threads_of_a_new_thread() == 3


def test_callers_in_new_threads_keep_their_number_of_threads() -> None:
    for _ in range(5):
        cores._readers.cache_clear()
        found: list[int] = []
        begin = threading.Barrier(4)

        def call(found: list[int] = found, begin: threading.Barrier = begin) -> None:
            begin.wait()
            clip_by_clip(lambda clip: [clip], torch.zeros(3, 1))
            found.append(torch.get_num_threads())

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert found == [3] * 4


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_features_of_spread_clips_are_those_of_one_thread(encoder: Encoder, compute: torch.dtype) -> None:
    encoder.prepare("cpu", compute)
    clips = video(6)
    spread = encoder.forward_intermediates(clips, [0, 2, 6])
    torch.set_num_threads(1)
    for ours, alone in zip(spread, encoder.forward_intermediates(clips, [0, 2, 6]), strict=True):
        assert torch.equal(ours, alone)


def test_counters_autocast_and_profilers_see_every_clip(encoder: Encoder) -> None:
    def flops(clips: int) -> int:
        with FlopCounterMode(display=False) as counter:
            encoder(video(clips))
        return counter.get_total_flops()

    assert flops(6) == 6 * flops(1) > 0
    with Calls() as calls:
        encoder(video(6))
    assert len(calls.seen) > 6 * MODEL.depth
    with torch.autocast("cpu", torch.bfloat16):
        assert clip_by_clip(lambda clip: [clip @ clip.mT], torch.ones(6, 2, 2))[0].dtype == torch.bfloat16
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        encoder(video(3), depth=1)
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts["aten::linear"] == 3 * (1 + 4), "the projection and four a block"
    with torch.inference_mode():
        assert encoder(video(6)).shape[0] == 6


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_what_is_traced_or_mapped_depends_on_its_input(encoder: Encoder) -> None:
    one, other = video(3).float() / 255, video(3).float() / 510
    wanted = encoder(other)
    torch.testing.assert_close(torch.jit.trace(encoder, one)(other), wanted)
    torch.testing.assert_close(torch.compile(encoder, backend="eager", fullgraph=True)(other), wanted)
    doubled = torch.func.vmap(lambda x: clip_by_clip(lambda clip: [2 * clip], x)[0])(torch.ones(2, 3, 1))
    assert torch.equal(doubled, torch.full((2, 3, 1), 2.0))


def test_an_error_in_one_clip_is_raised_and_the_next_batch_is_read() -> None:
    def read(clip: Tensor) -> list[Tensor]:
        if clip.item() == 4:
            raise ValueError("clip 4")
        return [clip]

    with pytest.raises(ValueError, match="clip 4"):
        clip_by_clip(read, torch.arange(6.0).view(6, 1))
    assert len(clip_by_clip(read, torch.zeros(6, 1))[0]) == 6


FORK = """
import multiprocessing, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads are what this is about
import torch
from layerlock.model import cores
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.vit import ViTConfig

torch.set_num_threads(2)
cores._cores = lambda: 2
shape = ClipShape(frames=8, stride=2, size=24)
encoder = Encoder.random(ViTConfig(width=24, depth=6, mlp=48, heads=2, patch=(2, 8, 8)), shape)
clips = torch.randint(0, 256, (5, 8, 3, 24, 24), dtype=torch.uint8)
found = encoder(clips)
torch.mm(torch.ones(600, 600), torch.ones(600, 600))  # on threads of torch's own

def again(number):
    assert torch.mm(torch.ones(600, 600), torch.ones(600, 600))[0, 0] == 600
    assert torch.equal(encoder(clips)[:4], found[:4]), "those that were read a thread each"
    return number

if sys.argv[1] == "fork":
    if sys.argv[2] == "held":
        cores._counting.acquire()
    child = os.fork()
    if child == 0:
        again(0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
else:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(again, range(4)) == [0, 1, 2, 3]
if sys.argv[2] != "held":
    assert torch.get_num_threads() == 2
    assert torch.equal(encoder(clips)[:4], found[:4])
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system has no fork")
@pytest.mark.parametrize("how", [("fork", "free"), ("fork", "held"), ("multiprocessing", "free")], ids="-".join)
def test_a_process_that_is_forked_after_encoding_encodes_too(how: tuple[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, *how], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
