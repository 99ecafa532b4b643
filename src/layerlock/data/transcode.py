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
from layerlock.data.decode.picture import scaled, upright
from layerlock.data.decode.video import IMAGES, SENS, UnreadableVideo, VideoInfo

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane
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

    rate, tick_n = _clock(frame_times(video), video.fps)
    pictures = _pictures(video, encoding.size(video))
    try:
        with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            first = next(pictures)
            stream = _stream(container, first, rate, encoding, even=tick_n is None)
            for place, picture in enumerate(itertools.chain([first], pictures)):
                picture.pts = place if tick_n is None else tick_n[place]
                picture.time_base = stream.codec_context.time_base
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        if error.errno in errno.errorcode and error.errno not in (errno.EINVAL, errno.ENOMEM):  # the system's
            raise OSError(error.errno, error.strerror, str(out)) from None
        raise UnreadableVideo(video.path, f"it cannot be encoded: {error.strerror}") from None
    written = probe(str(out))
    if (written.frames, written.seekable) != (video.frames, True):
        raise UnreadableVideo(video.path, f"encoded, {written.frames:,} of its {video.frames:,} frames are shown")
    return written


def _clock(time_n: Sequence[float], fps: float) -> tuple[Fraction, list[int] | None]:
    """Frames a second and, where they are shown at uneven times, the time of each in ticks, rising."""
    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)  # a nominal one where frames are hours apart
    if fps >= 1 / 1001 and all(abs(time * fps - place) < 0.01 for place, time in enumerate(time_n)):
        return rate, None
    ticks = (round(time * _TICKS) for time in time_n)
    return rate, list(itertools.accumulate(ticks, lambda before, tick: max(tick, before + 1)))


def _pictures(video: VideoInfo, size: tuple[int, int]) -> Iterator[VideoFrame]:
    """The frames, upright and resized to `size` (height, width), in yuv420p of limited range.

    Colours stay in the matrix that the frame has, so that nothing is rounded twice; those of pictures go to ITU 601's.
    """
    import av
    from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

    turns, mirrored = (0, False) if video.codec in (IMAGES, SENS) else (video.rotation, video.mirrored)
    height, width = reversed(size) if turns % 2 else size
    scaler, exact = VideoReformatter(), Interpolation.BILINEAR | Interpolation.ACCURATE_RND
    for frame in frames_of(video):
        matrix = Colorspace.ITU601 if frame.format.is_rgb else None
        picture = scaled(
            video.path,
            frame,
            scaler,
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=matrix,
            dst_color_range="MPEG",
            interpolation=exact,
        )
        if not turns and not mirrored:
            yield picture
            continue
        turned = av.VideoFrame(size[1], size[0], "yuv420p")
        for plane, before in zip(turned.planes, picture.planes, strict=True):
            _rows(plane)[:] = upright(_rows(before), turns, mirrored, axes=(0, 1))
        turned.colorspace, turned.color_range = picture.colorspace, picture.color_range
        yield turned


def _rows(plane: VideoPlane) -> np.ndarray:
    """The values of a plane of bytes, `[H, W]`, which can be written."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _stream(
    container: OutputContainer, picture: VideoFrame, rate: Fraction, encoding: Encoding, *, even: bool
) -> VideoStream:
    options = {
        "crf": str(encoding.crf),
        "preset": "veryfast",
        "threads": "1",
        # every so many frames a key frame and none between; no B-frames, since they delay the first frame of a clip;
        # no macroblock tree, which reads memory that nobody wrote when frames are small (x264 165)
        "x264-params": f"keyint={encoding.gop}:min-keyint={encoding.gop}:scenecut=0:bframes=0:mbtree=0",
    }
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = picture.height, picture.width, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate if even else Fraction(1, _TICKS)
    context.colorspace, context.color_range = picture.colorspace, picture.color_range
    return stream
