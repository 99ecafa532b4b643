from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import ODD
from video_files import HEIGHT, WIDTH, number_of, shared, tag_rotation, write_video

from layerlock.data.decode import pyav
from layerlock.data.decode.torchcodec import read_clips
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo

QUIET_HEVC = {"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=3"}
EXACT = [
    ("a.mp4", "libx264", {"bf": "3"}),
    ("a.mp4", "libx265", QUIET_HEVC),
    ("a.webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    ("a.mp4", "mpeg4", {"bf": "2"}),
]
INEXACT = [
    ("a.mkv", "libx264", {"bf": "5", "b-pyramid": "none", "x264-params": "b-adapt=0:open-gop=1:scenecut=0"}),
    ("a.ts", "libx264", {"bf": "2"}),
    ("a.mpg", "mpeg2video", {"bf": "2"}),
]
"""these are not sought, and left to PyAV"""


@pytest.fixture(scope="module", autouse=True)
def _torchcodec() -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be imported: {str(error).strip().splitlines()[0]}")


def compare(video: VideoInfo, cuts: list[Cut], *, size: tuple[int, int] | None = None) -> np.ndarray:
    """The clips by torchcodec; at the native size PyAV's have to be the same bit for bit."""
    clips = read_clips(video, cuts, size=size or (video.height, video.width))
    if size is None:
        expected = pyav.read_clips(video, cuts, size=(video.height, video.width))
        np.testing.assert_array_equal(clips.video_nthwc, expected.video_nthwc)
    return clips.video_nthwc


@pytest.mark.parametrize(("name", "codec", "options"), [*EXACT, *INEXACT], ids=lambda value: str(value)[:20])
def test_frames_are_those_of_pyav(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    video = pyav.probe(str(write_video(tmp_path / name, codec=codec, options=options, frames=60)))
    for start in (0, 1, 11, 12, 13, 30, 47, 59):
        clip = compare(video, [Cut(start=start, frames=4, stride=3)])[0]
        first = min(start, 50)
        assert [number_of(frame) for frame in clip] == [first, first + 3, first + 6, first + 9]


@pytest.mark.parametrize(("name", "codec", "options"), EXACT, ids=lambda value: str(value)[:20])
def test_pyav_only_reads_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict[str, str]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    video = pyav.probe(str(write_video(tmp_path / name, codec=codec, options=options, frames=60)))
    monkeypatch.delattr(pyav, "read_clips")
    clip = read_clips(video, [Cut(start=20, frames=3, stride=5)], size=(HEIGHT, WIDTH)).video_nthwc[0]
    assert [number_of(frame) for frame in clip] == [20, 25, 30]


def test_several_cuts_by_stride_and_by_time(tmp_path: Path) -> None:
    video = pyav.probe(str(write_video(tmp_path / "a.mp4", frames=100)))
    cuts = [
        Cut(start=70, frames=4, stride=2),
        Cut(start=5, frames=4, stride=1),
        Cut(start=68, frames=4, stride=1, seconds=0.16),
        Cut(start=99, frames=4, stride=9, seconds=0.04),
    ]
    clips = compare(video, cuts)
    assert [[number_of(frame) for frame in clip] for clip in clips] == [
        [70, 72, 74, 76],
        [5, 6, 7, 8],
        [68, 72, 76, 80],
        [96, 97, 98, 99],
    ]


def test_only_what_is_needed_is_decoded(tmp_path: Path) -> None:
    """Key frames are 10 apart: frames 30 to 34, and 70 to 71."""
    video = pyav.probe(str(write_video(tmp_path / "a.mp4", frames=100, gop=10, options={"bf": "0"})))
    cuts = [Cut(start=32, frames=2, stride=2), Cut(start=70, frames=2, stride=1)]
    assert read_clips(video, cuts, size=(HEIGHT, WIDTH)).decoded == 7


@pytest.mark.parametrize("seconds", [None, 0.08])
def test_variable_frame_rate(tmp_path: Path, seconds: float | None) -> None:
    times = [*range(20), *range(20, 100, 4)]
    video = pyav.probe(str(write_video(tmp_path / "a.mkv", times=times)))
    for start in range(0, 40, 7):
        compare(video, [Cut(start=start, frames=5, stride=2, seconds=seconds)])


def test_a_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    video = pyav.probe(str(write_video(tmp_path / "a.mp4", frames=5)))
    clip = compare(video, [Cut(start=3, frames=6, stride=2)])[0]
    assert [number_of(frame) for frame in clip] == [0, 2, 4, 4, 4, 4]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_pictures_are_turned_once(tmp_path: Path, degrees: int) -> None:
    write_video(tmp_path / "plain.mp4", frames=20)
    video = pyav.probe(str(_turned(tmp_path / "plain.mp4", tmp_path / "turned.mp4", degrees)))
    assert video.rotation == degrees // 90
    compare(video, [Cut(start=3, frames=4, stride=2)])
    size = video.resized(48)
    cut = Cut(start=3, frames=4, stride=2)
    clip = compare(video, [cut], size=size)
    expected = pyav.read_clips(video, [cut], size=size).video_nthwc
    assert clip.shape == expected.shape == (1, 4, *size, 3)
    assert np.abs(clip.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_mirrored_pictures_are_left_to_pyav(tmp_path: Path, turns: int) -> None:
    path = write_video(tmp_path / "a.mp4", frames=20)
    tag_rotation(path, turns, mirrored=True)
    compare(pyav.probe(str(path)), [Cut(start=3, frames=4, stride=2)])


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_those_of_pyav(tmp_path: Path, kind: str) -> None:
    video = pyav.probe(str(ODD[kind](tmp_path)))
    for start in range(0, video.frames, 9):
        compare(video, [Cut(start=start, frames=3, stride=2)])


def _turned(path: Path, copy: Path, degrees: int) -> Path:
    """The same packets, to be shown turned by so many degrees, counter-clockwise."""
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return copy


@pytest.mark.parametrize("name", ["a.avi", "raw.h264"])
def test_without_reliable_times_pyav_counts(tmp_path: Path, name: str) -> None:
    container_format = "h264" if name == "raw.h264" else None
    video = pyav.probe(str(write_video(tmp_path / name, container_format=container_format)))
    clip = compare(video, [Cut(start=13, frames=4, stride=2)])[0]
    assert [number_of(frame) for frame in clip] == [13, 15, 17, 19]


@pytest.mark.parametrize(
    "name", ["mit leer.mp4", 'it\'s "a".mp4', "neue\nzeile.mp4", "日本語 ü.mp4", "a:b.mp4", "%d.mp4"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "plain.mp4", frames=3).rename(tmp_path / name)
    clip = compare(pyav.probe(str(tmp_path / name)), [Cut(start=0, frames=2, stride=2)])[0]
    assert [number_of(frame) for frame in clip] == [0, 2]


def test_damage_is_an_unreadable_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=200, container_options={"movflags": "faststart"})
    video = pyav.probe(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableVideo):
        read_clips(video, [Cut(start=190, frames=4, stride=2)], size=(HEIGHT, WIDTH))
    path.unlink()
    with pytest.raises(UnreadableVideo, match="No such file"):
        read_clips(video, [Cut(start=0, frames=4, stride=2)], size=(HEIGHT, WIDTH))


def test_real_footage_at_its_own_size_is_the_same() -> None:
    for path in sorted(shared("footage").iterdir())[::6]:
        video = pyav.probe(str(path))
        compare(video, [Cut(start=video.frames // 2, frames=3, stride=2), Cut(start=video.frames, frames=3, stride=1)])


def test_real_footage_resized_differs_by_two_grey_levels_at_most() -> None:
    """On the average of a clip: torchcodec converts to RGB before it resizes, PyAV while it does."""
    for path in sorted(shared("footage").iterdir())[::6]:
        video = pyav.probe(str(path))
        cuts, size = [Cut(start=video.frames // 2, frames=3, stride=2)], video.resized(128)
        expected = pyav.read_clips(video, cuts, size=size).video_nthwc
        assert np.abs(compare(video, cuts, size=size).astype(int) - expected).mean() < 2.5


def test_old_444_h264_is_whole_after_a_seek() -> None:
    video = pyav.probe(str(shared("footage") / "cockatoo.mp4"))
    compare(video, [Cut(start=140, frames=1, stride=1)])
