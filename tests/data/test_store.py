from __future__ import annotations

import mmap
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import write_video

from layerlock.data import ClipConfig, batches, store
from layerlock.data.decode.pyav import probe, read_clips
from layerlock.data.decode.video import Cut, VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.store import FrameStore, store_for

CLIP = ClipConfig(frames=4, stride=2, size=16, per_decode=3)
SIZE = (16, 80)


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoInfo]:
    """A usual video, a short one, one of variable rate, one whose end went missing after it was looked into."""
    write_video(tmp_path / "usual.mp4", frames=60)
    write_video(tmp_path / "short.mkv", frames=30)
    write_video(tmp_path / "variable.mp4", times=[*range(20), *range(20, 100, 4)])
    damaged = write_video(tmp_path / "damaged.mp4", frames=200, container_options={"movflags": "faststart"})
    found = [probe(str(tmp_path / name)) for name in ("usual.mp4", "short.mkv", "variable.mp4", "damaged.mp4")]
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size * 2 // 3])
    return found


def test_clips_are_those_of_the_files(videos: list[VideoInfo]) -> None:
    kept = FrameStore(videos, [SIZE] * 4)
    for number, video in enumerate(videos):
        for start in (0, 3, 21, 39):
            for seconds in (None, 0.1):
                cuts = [Cut(start=at, frames=4, stride=2, seconds=seconds) for at in (start, start + 1)]
                clips_nthwc = kept.read_clips(number, cuts, size=SIZE)
                if number == 3:
                    assert clips_nthwc is None
                else:
                    np.testing.assert_array_equal(clips_nthwc, read_clips(video, cuts, size=SIZE).video_nthwc)


def test_each_video_is_decoded_once(videos: list[VideoInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read_whole = store.read_whole
    monkeypatch.setattr(store, "read_whole", lambda video, **how: decoded.append(video) or read_whole(video, **how))
    kept = FrameStore(videos, [SIZE] * 4)
    for _ in range(3):
        for number in range(4):
            kept.read_clips(number, [Cut(start=0, frames=2, stride=1)], size=SIZE)
    assert decoded == videos


def test_another_size_is_not_kept(videos: list[VideoInfo]) -> None:
    assert FrameStore(videos, [SIZE] * 4).read_clips(0, [Cut(start=0, frames=2, stride=1)], size=(8, 40)) is None


def test_more_frames_than_there_is_room_for_are_left(videos: list[VideoInfo]) -> None:
    kept = FrameStore([replace(videos[0], frames=40)], [SIZE])
    assert kept.read_clips(0, [Cut(start=0, frames=2, stride=1)], size=SIZE) is None


def test_a_long_video_is_left_and_takes_no_room(videos: list[VideoInfo]) -> None:
    long = replace(videos[0], frames=store.LONGEST + 1)
    assert store.room_for(long, SIZE) == 0
    assert FrameStore([long], [SIZE]).read_clips(0, [Cut(start=0, frames=2, stride=1)], size=SIZE) is None


def test_a_full_disk_leaves_the_video_to_its_file(videos: list[VideoInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    kept, write = FrameStore(videos, [SIZE] * 4), os.pwrite

    def full(descriptor: int, values: memoryview, begin: int) -> int:
        if begin >= mmap.PAGESIZE:
            raise OSError(28, "No space left on device")
        return write(descriptor, values, begin)

    monkeypatch.setattr(os, "pwrite", full)
    assert kept.read_clips(0, [Cut(start=0, frames=2, stride=1)], size=SIZE) is None


def test_a_disk_that_is_full_from_the_start_gives_no_store(
    videos: list[VideoInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert store_for(videos, lambda: [SIZE] * 4, budget=10**9, openings=100) is None


def test_a_process_that_dies_while_it_decodes_leaves_the_video_to_its_file(
    videos: list[VideoInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    kept = FrameStore(videos, [SIZE] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(store, "read_whole", die)
        with pytest.raises(KeyboardInterrupt):
            kept.read_clips(0, [Cut(start=0, frames=2, stride=1)], size=SIZE)
    assert kept.read_clips(0, [Cut(start=0, frames=2, stride=1)], size=SIZE) is None


def test_it_is_used_where_it_pays(videos: list[VideoInfo]) -> None:
    sizes = [SIZE] * 4
    needed = sum(store.room_for(video, SIZE) for video in videos)
    assert needed > sum(video.frames for video in videos) * 16 * 80 * 3
    assert store_for(videos, lambda: sizes, budget=needed, openings=9) is not None
    assert store_for(videos, lambda: sizes, budget=needed - 1, openings=9) is None
    assert store_for(videos, lambda: sizes, budget=needed, openings=8) is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("area", [None, (0.3, 1.0)])
def test_a_source_gives_the_same_clips_with_it(
    tmp_path: Path, videos: list[VideoInfo], workers: int, area: tuple[float, float] | None
) -> None:
    index = build_index(tmp_path, 0)
    clip = replace(CLIP, area=area)
    side = clip.resize_side
    sizes = [(side, side) if area else video.resized(side) for video in index.videos]
    kept = FrameStore(index.videos, sizes)
    plain = list(batches(FolderSource(index, clip, 1), batch=6, start=0, stop=3, workers=0))
    stored = list(batches(FolderSource(index, clip, 1, store=kept), batch=6, start=0, stop=3, workers=workers))
    for a, b in zip(plain, stored, strict=True):
        assert a.names == b.names
        assert torch.equal(a.video_btchw, b.video_btchw)
    assert (kept._count_v != 0).any()  # what the workers decoded is seen from here
