"""One list of frames: clips, alone or of one decode, and the whole file are what a decode from the first byte shows.

`python tests/data/decode/test_one_list.py FOLDER...` compares every start of the files in these folders and prints how
many there are and how many differ.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # where this file runs as a program

from odd_videos import ODD
from video_files import number_of, shared

from layerlock.data import ClipConfig
from layerlock.data.decode import probe, read_clips, read_whole
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index

COLUMNS = 8
"""of the pictures in odd_frames, lowest bit left"""


def shown(path: Path) -> Iterator[av.VideoFrame]:
    """The frames of a decode from the first byte, as ffmpeg shows them, with nothing of the library."""
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.unaligned  # as ffmpeg does
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            if packet is not None and not packet.size:
                continue
            with contextlib.suppress(av.FFmpegError):
                yield from stream.codec_context.decode(packet)
            if packet is None:
                return


def pixels(video: VideoInfo, size: tuple[int, int]) -> np.ndarray:
    """The same, resized and upright, uint8 `[F, H, W, 3]`."""
    height, width = reversed(size) if video.rotation % 2 else size
    scaler = av.video.reformatter.VideoReformatter()
    how = {"format": "rgb24", "dst_color_range": "JPEG", "interpolation": "BILINEAR", "threads": 1}
    frame_nhwc = np.stack(
        [scaler.reformat(frame, width, height, **how).to_ndarray() for frame in shown(Path(video.path))]
    )
    turned = np.rot90(frame_nhwc, video.rotation, axes=(1, 2))
    return turned[:, :, ::-1] if video.mirrored else turned


@dataclass
class Found:
    """What was compared."""

    files: int = 0
    starts: int = 0
    clips: int = 0
    differences: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def compare(self, path: Path, *, most: int = 10**9, short_side: int = 32) -> None:
        """Every start of a file, or `most` of them that lie evenly: alone, in pairs of one decode, and in the store."""
        self.files += 1
        try:
            video = probe(str(path))
        except UnreadableVideo as error:
            self.rejected.append(f"{path.name}: {error.reason}")
            return
        size = video.resized(short_side)
        frame_nhwc = pixels(video, size)
        time_n, whole_nhwc = read_whole(video, size=size, most=10**6)
        if not np.array_equal(whole_nhwc, frame_nhwc) or video.frames != len(frame_nhwc):
            self.differences.append(f"{path.name}: whole, {video.frames} for {len(frame_nhwc)}")
            return
        for start in range(0, video.frames, -(-video.frames // most)):
            self.starts += 1
            seconds = 1.4 / video.fps if start % 3 == 2 else None
            alone = [Cut(start=start, frames=3, stride=2, seconds=seconds)]
            pair = [*alone, Cut(start=start * 7 % video.frames, frames=3, stride=2, seconds=seconds)]
            for cuts in (alone, pair) if start % 2 else (alone,):
                clips_nthwc = read_clips(video, cuts, size=size).video_nthwc
                self.clips += len(cuts)
                for cut, clip_thwc in zip(cuts, clips_nthwc, strict=True):
                    if not np.array_equal(clip_thwc, frame_nhwc[cut.places(time_n, video.fps)]):
                        self.differences.append(f"{path.name}: {cut}, {len(cuts)} together")

    def __str__(self) -> str:
        return (
            f"{self.files} files ({len(self.rejected)} rejected), {self.starts} starts, {self.clips} clips: "
            f"{len(self.differences)} differences"
        )


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_one_list(tmp_path: Path, kind: str) -> None:
    try:
        path = ODD[kind](tmp_path)
    except av.codec.codec.UnknownCodecError as error:
        pytest.skip(f"this FFmpeg has no such encoder: {error}")
    found = Found()
    found.compare(path)
    assert (found.differences, found.rejected) == ([], [])


@pytest.mark.parametrize("kind", [kind for kind in ODD if "varying" not in kind])
def test_a_start_is_a_place_in_the_list(tmp_path: Path, kind: str) -> None:
    try:
        video = probe(str(ODD[kind](tmp_path)))
    except av.codec.codec.UnknownCodecError as error:
        pytest.skip(f"this FFmpeg has no such encoder: {error}")
    numbers = [number_of(frame) for frame in pixels(video, (video.height, video.width))]
    assert len(numbers) == video.frames
    assert video.seconds == pytest.approx(video.frames / video.fps)
    for start in range(0, video.frames - 5, 4):
        cut = Cut(start=start, frames=3, stride=2)
        (clip_thwc,) = read_clips(video, [cut], size=(video.height, video.width)).video_nthwc
        assert [number_of(frame) for frame in clip_thwc] == numbers[start : start + 5 : 2]


@pytest.mark.parametrize("kind", ["lost packets", "joined transport streams", "cut avi", "cut flv", "zeros in mp4"])
def test_what_the_index_accepts_can_be_trained_on(tmp_path: Path, kind: str) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        path = ODD[kind](tmp_path / str(number))
        (tmp_path / "videos").mkdir(exist_ok=True)
        path.rename(tmp_path / "videos" / f"{number}{path.suffix}")
    index = build_index(tmp_path / "videos", 0, cache=False)
    assert (len(index), index.rejected) == (3, ())
    source = FolderSource(index, ClipConfig(frames=4, stride=2, size=16), seed=0)
    assert [sample.skipped for group in range(30) for sample in source.samples(group)] == [()] * 30


def columns_of(picture_hwc: np.ndarray) -> int:
    """The number in a picture of odd_frames."""
    height, width, _ = picture_hwc.shape
    centres = [int((bit + 0.5) * width / COLUMNS) for bit in range(COLUMNS)]
    return sum(int(picture_hwc[height // 4, centre].mean() > 128) << bit for bit, centre in enumerate(centres))


def test_real_odd_frames_are_those_that_ffmpeg_shows() -> None:
    folder = shared("odd_frames")
    found = Found()
    for name, numbers in json.loads((folder / "expected.json").read_text()).items():
        video = probe(str(folder / name))
        size = (video.height, video.width)
        assert [columns_of(frame) for frame in read_whole(video, size=size, most=999)[1]] == numbers, name
        for start in range(0, len(numbers) - 6, 5):
            (clip_thwc,) = read_clips(video, [Cut(start=start, frames=4, stride=2)], size=size).video_nthwc
            assert [columns_of(frame) for frame in clip_thwc] == numbers[start : start + 7 : 2], (name, start)
        found.compare(folder / name, most=20)
    assert (found.differences, found.rejected) == ([], [])


def test_real_odd_files_and_footage_are_one_list() -> None:
    found = Found()
    for path in [*sorted(shared("odd_files").iterdir()), *sorted(shared("footage").iterdir())[::3]]:
        found.compare(path, most=4)
    assert found.differences == []
    assert [reason.partition(":")[0] for reason in found.rejected] == ["broken.mp4", "empty.flv"]


def main() -> None:
    """Compares the files in the folders that are named."""
    found = Found()
    for folder in sys.argv[1:]:
        for path in sorted(Path(folder).iterdir()):
            if path.suffix != ".json":
                found.compare(path)
    print(found)
    print("\n".join([*found.rejected, *found.differences]))


if __name__ == "__main__":
    main()
