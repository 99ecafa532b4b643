"""A video as a small file that is quick to read clips from: H.264, a short side of few pixels, close key frames."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerlock.data.decode import frame_times, frames_of, probe
from layerlock.data.decode.video import UnreadableVideo, VideoInfo

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_TICKS = 90_000
"""a second, where frames are shown at uneven times"""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a video is encoded."""

    short_side: int = 256
    """pixels of the shorter side; smaller videos keep their size"""
    gop: int = 16
    """frames from one key frame to the next"""
    crf: int = 20
    """x264's constant rate factor: 0 is lossless, each 6 more about half the bytes"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        return [
            f"{name} is {value}; it has to be between {least:,} and {most:,}"
            for name, value, least, most in (
                ("short_side", self.short_side, 16, 4_096),
                ("gop", self.gop, 1, 10_000),
                ("crf", self.crf, 0, 51),
            )
            if not least <= value <= most
        ]

    def size(self, video: VideoInfo) -> tuple[int, int]:
        """(height, width) of a video's pictures, which have to be even."""
        height, width = video.resized(min(self.short_side, video.height, video.width))
        return max(2, height + height % 2), max(2, width + width % 2)


def transcode(video: VideoInfo, out: Path, encoding: Encoding) -> VideoInfo:
    """Writes a video as an mp4 file, frame by frame, and says what is in it. The same video gives the same bytes.

    Frames keep their times; gaps at an even rate are closed up, as clips have them; sound is left out. Raises
    UnreadableVideo for a video that cannot be decoded or encoded, OSError for a disk that cannot be written.
    """
    import av

    size = encoding.size(video)
    time_n = frame_times(video)
    rate, tick_n = _clock(time_n, video.fps)
    frames = frames_of(video, size=size)
    try:
        with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = _stream(container, size, rate, encoding, even=tick_n is None)
            _encode(container, stream, frames, tick_n)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES):
            raise OSError(error.errno, error.strerror, str(out)) from None
        raise UnreadableVideo(video.path, f"it cannot be encoded: {error.strerror}") from None
    written = probe(str(out))
    if (written.frames, written.seekable) != (video.frames, True):
        raise UnreadableVideo(video.path, f"encoded, {written.frames:,} of its {video.frames:,} frames are shown")
    return written


def _clock(time_n: Sequence[float], fps: float) -> tuple[Fraction, list[int] | None]:
    """Frames a second and, where they are shown at uneven times, the time of each in ticks, rising."""
    rate = Fraction(fps).limit_denominator(1001)
    if all(abs(time * fps - place) < 0.01 for place, time in enumerate(time_n)):
        return rate, None
    ticks = (round(time * _TICKS) for time in time_n)
    return rate, list(itertools.accumulate(ticks, lambda before, tick: max(tick, before + 1)))


def _stream(
    container: OutputContainer, size: tuple[int, int], rate: Fraction, encoding: Encoding, *, even: bool
) -> VideoStream:
    from av.video.reformatter import ColorRange, Colorspace

    options = {
        "crf": str(encoding.crf),
        "preset": "veryfast",
        "threads": "1",
        # every so many frames a key frame and none between; no B-frames, since they delay the first frame of a clip;
        # no macroblock tree, which reads memory that nobody wrote when frames are small (x264 165)
        "x264-params": f"keyint={encoding.gop}:min-keyint={encoding.gop}:scenecut=0:bframes=0:mbtree=0",
    }
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU601
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.time_base = 1 / rate if even else Fraction(1, _TICKS)
    return stream


def _encode(
    container: OutputContainer,
    stream: VideoStream,
    frames: Iterator[tuple[float, np.ndarray]],
    tick_n: Sequence[int] | None,
) -> None:
    import av
    from av.video.reformatter import Colorspace, VideoReformatter

    scaler = VideoReformatter()
    for place, (_, picture_hwc) in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_hwc), format="rgb24")
        frame = scaler.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range="MPEG", threads=1
        )
        frame.pts = place if tick_n is None else tick_n[place]
        frame.time_base = stream.codec_context.time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
