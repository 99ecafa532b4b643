"""Consecutive clips against what was written into a file and when, as a linear decode of it shows."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from video_files import number_of, write_video

from layerlock.data import ClipConfig, Sample, Source
from layerlock.data.decode import probe, read_clips, read_whole
from layerlock.data.decode.video import VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.features.consecutive import ConsecutiveViews, Window, all_windows, together, windows

FPS = 25
SIZE = (32, 160)


def shown(video: VideoInfo, clip: ClipConfig, found: Sequence[Window]) -> list[list[int]]:
    """The numbers in the frames of each clip, each decoded on its own."""
    clips = [read_clips(video, [clip.cut(window.start)], size=SIZE).video_nthwc[0] for window in found]
    return [[number_of(frame) for frame in clip_thwc] for clip_thwc in clips]


STEPS = st.lists(st.sampled_from([1, 1, 1, 2, 5, 60]), max_size=90) | st.integers(0, 90).map(lambda count: [1] * count)
"""from each frame to the next, in frames of the rate that is written"""


@given(
    steps=STEPS,
    name=st.sampled_from(["a.mp4", "a.mkv", "a.ts"]),
    frames=st.integers(1, 6),
    stride=st.integers(1, 3),
    fps=st.sampled_from([None, 10.0, 12.0, 40.0]),
    hop=st.sampled_from([None, 0.2, 0.7, 3.0]),
    gop=st.sampled_from([3, 12]),
)
def test_every_clip_has_the_frames_of_its_time(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[int],
    name: str,
    frames: int,
    stride: int,
    fps: float | None,
    hop: float | None,
    gop: int,
) -> None:
    times = [sum(steps[:number]) for number in range(len(steps) + 1)]
    assume(name != "a.ts" or len(times) >= 12)  # a shorter one is no transport stream to FFmpeg
    path = write_video(tmp_path_factory.mktemp("v") / name, frames=len(times), times=times, gop=gop)
    video, clip = probe(str(path)), ClipConfig(frames=frames, stride=stride, fps=fps)
    time_n, frame_nhwc = read_whole(video, size=SIZE, most=99)  # the linear decode
    assert [number_of(frame) for frame in frame_nhwc] == list(range(len(times)))
    found = windows(video, clip, hop)
    end, length = video.with_gaps(video.seconds), frames * (stride if fps is None else FPS / fps) / FPS
    real_n = [video.with_gaps(time) for time in time_n]
    if name != "a.ts" or video.times:  # those of an even rate, not seekable, are counted without gaps
        assert real_n == pytest.approx([time / FPS for time in times], abs=2e-3)
    begins = [window.begin for window in found]
    assert begins == sorted(set(begins))
    assert begins[0] == 0
    assert found[-1].end == pytest.approx(end) if fps is None else real_n[-1] < found[-1].end <= end + 1e-9
    for window, numbers in zip(found, shown(video, clip, found), strict=True):
        if fps is None:
            first = real_n.index(window.begin)
            assert numbers == [min(first + i * stride, len(times) - 1) for i in range(frames)]
            after = numbers[-1] + stride
            assert window.end == (real_n[after] if after < len(times) else pytest.approx(end))
        elif not video.missing:
            moments = [window.begin + 0.01 / video.fps + i / fps for i in range(frames)]
            assert numbers == [bisect.bisect_right(time_n, moment) - 1 for moment in moments]
            assert window.end == pytest.approx(min(window.begin + frames / fps, end))
    if hop is None and fps is None:  # one begins where the one before ends, but the last, which ends with the video
        assert [window.begin for window in found[1:-1]] == [window.end for window in found[:-2]]
        assert all(after.begin <= before.end for before, after in zip(found[-2:-1], found[-1:], strict=False))
    if hop is None or (fps and hop <= length):  # nothing is left out
        assert all(any(window.begin <= time < window.end for window in found) for time in real_n)


def test_frames_that_are_missing_are_no_time_that_is_lost(tmp_path: Path) -> None:
    """Twenty frames at an even rate, of which two were dropped: clips count frames, their times are the file's."""
    times = [time for time in range(22) if time not in (6, 15)]
    video = probe(str(write_video(tmp_path / "a.mp4", frames=20, times=times)))
    assert video.missing == (6, 15)
    found = windows(video, ClipConfig(frames=5, stride=1))
    assert [round(window.begin * FPS, 6) for window in found] == [0, 5, 11, 17]
    assert [round(window.end * FPS, 6) for window in found] == [5, 11, 17, 22]
    by_time = windows(video, ClipConfig(frames=5, fps=12.5))
    assert [round(window.begin * FPS, 6) for window in by_time] == [0, 11]
    assert [round(window.end * FPS, 6) for window in by_time] == [11, 22]


@pytest.mark.parametrize(
    ("count", "clip", "hop", "begins", "end"),
    [
        (64, ClipConfig(frames=16, stride=2), None, [0, 32], 64),
        (65, ClipConfig(frames=16, stride=2), None, [0, 32, 33], 65),
        (31, ClipConfig(frames=16, stride=2), None, [0], 31),
        (1, ClipConfig(frames=16, stride=2), None, [0], 1),
        (50, ClipConfig(frames=5, stride=1), 1.0, [0, 25, 45], 50),
        (50, ClipConfig(frames=10, stride=2), 0.4, [0, 10, 20, 30], 50),
        (50, ClipConfig(frames=10, fps=12.5), None, [0, 20, 30], 50),
        (50, ClipConfig(frames=10, fps=5.0), None, [0], 50),
        (7, ClipConfig(frames=10, fps=5.0), None, [0], 7),
    ],
)
def test_where_clips_begin(
    tmp_path: Path, count: int, clip: ClipConfig, hop: float | None, begins: list[int], end: int
) -> None:
    found = windows(probe(str(write_video(tmp_path / "a.mp4", frames=count))), clip, hop)
    assert [round(window.begin * FPS, 6) for window in found] == begins
    assert found[-1].end == pytest.approx(end / FPS)


CLIP = ClipConfig(frames=4, stride=1, size=32, resize=1.0, flip=False)


def views_of(folder: Path, per_decode: int) -> tuple[ConsecutiveViews, dict[str, str]]:
    source = FolderSource(build_index(folder, 0), CLIP, 0)
    found, lost = all_windows(source, None, workers=0, progress=lambda *_: None)
    return ConsecutiveViews(source, found, per_decode), lost


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos of 9, 4 and 21 frames: 3, 1 and 6 clips."""
    for name, frames in (("a", 9), ("b", 4), ("c", 21)):
        write_video(tmp_path / f"{name}.mp4", frames=frames)
    return tmp_path


@pytest.mark.parametrize(("per_decode", "samples"), [(1, 10), (2, 12), (4, 16)])
def test_groups_of_clips_are_the_clips_alone(folder: Path, per_decode: int, samples: int) -> None:
    views, _ = views_of(folder, per_decode)
    assert isinstance(views, Source)
    assert len(views) == samples
    made = [sample for group in range(samples // per_decode) for sample in views.samples(group)]
    assert [sample.index for sample in made] == list(range(samples))
    alone, _ = views_of(folder, 1)
    clips = [sample for sample in made if sample.index not in views.fillers]
    for index, sample in enumerate(clips):
        (expected,) = alone.samples(index)
        assert torch.equal(sample.video_tchw, expected.video_tchw)
        assert sample.name == expected.name == views.name(sample.index)
    assert [Path(sample.name).name for sample in clips[2:5]] == [
        "a.mp4, clip 3 (0.20 to 0.36 s)",
        "b.mp4, clip 1 (0.00 to 0.16 s)",
        "c.mp4, clip 1 (0.00 to 0.16 s)",
    ]
    assert [sample.skipped for sample in made] == [()] * samples
    (again, *_) = views.samples(samples // per_decode)
    assert (again.index, again.name) == (samples, made[0].name)


def names(samples: Sequence[Sample]) -> list[list[str]]:
    return [[Path(name).name.partition(" (")[0] for name, _ in sample.skipped] for sample in samples]


def test_clips_that_cannot_be_decoded_are_black_and_named_each(folder: Path) -> None:
    views, lost = views_of(folder, 4)
    assert lost == {}
    (folder / "a.mp4").unlink()
    samples = views.samples(0)
    assert names(samples) == [["a.mp4, clip 1"], ["a.mp4, clip 2"], ["a.mp4, clip 3"], []]
    assert max(int(sample.video_tchw.max()) for sample in samples) == 0
    assert names(views.samples(1)) == [[], [], [], []]
    # after a process was lost on them the first is named by the loader, the others here
    assert names(views.samples(2, 1)) == [[], ["c.mp4, clip 2"], ["c.mp4, clip 3"], ["c.mp4, clip 4"]]
    _, lost = views_of(folder, 1)
    assert lost == {}  # the index no longer has it


def test_a_video_that_is_lost_before_its_times_are_read_is_named(folder: Path) -> None:
    source = FolderSource(build_index(folder, 0), CLIP, 0)
    (folder / "b.mp4").unlink()
    found, lost = all_windows(source, None, workers=1, progress=lambda *_: None)
    assert list(found) == [0, 2]
    assert [Path(path).name for path in lost] == ["b.mp4"]


@pytest.mark.parametrize(
    ("clips_v", "batch", "size"),
    [
        ([100], 16, 8),
        ([100], 6, 2),
        ([100], 5, 1),
        ([1] * 9, 16, 1),
        ([7, 8, 8], 8, 8),
        ([5], 16, 2),
        ([9, 2], 4, 2),
        ([3], 4, 1),
    ],
)
def test_as_many_clips_are_decoded_together_as_leave_few_places_empty(
    clips_v: list[int], batch: int, size: int
) -> None:
    assert together(clips_v, batch) == size
