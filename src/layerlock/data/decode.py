"""Video files to frames: what a file holds (`probe`) and one clip of it (`read_clip`), by PyAV.

Frames come in the order in which they are shown, upright (rotation tags are obeyed), as 8-bit full-range RGB whatever
the pixel format. Pixels are taken to be square. Only the frames of the clip are converted, straight to the wanted size.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

CHECKED_FRAMES = 64
"""frames that `probe` decodes from the start before it calls a file usable"""

_REORDERED = 32
"""packets to read beyond the clip: more than any codec reorders"""

_SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
"""codecs whose decoders leave out single frames on demand, exactly"""

_BACK_SECONDS = (0.0, 2.0, 10.0, math.inf)
"""how far before the clip to look for its key frame, one try after the other"""

_LONGEST = 16
"""long side of a resized frame, at most this multiple of the short one"""


class UnreadableVideo(Exception):
    """A file, or the wanted part of it, cannot be decoded. `reason` is one plain line without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video without decoding it all. Sizes are of the upright picture."""

    path: str
    frames: int
    """as the container says, or duration times frame rate, or counted; at least 1"""
    fps: float
    """average frames per second"""
    width: int
    height: int
    seconds: float
    codec: str
    rotation: int
    """quarter turns, counter-clockwise, that make the decoded picture upright: 0 to 3"""

    def resized(self, short_side: int) -> tuple[int, int]:
        """(height, width) with the shorter one `short_side`, in the video's proportions up to 16 to 1."""
        scale = short_side / min(self.height, self.width)
        longest = short_side * _LONGEST
        return min(longest, max(1, round(self.height * scale))), min(longest, max(1, round(self.width * scale)))


def probe(path: str) -> VideoInfo:
    """Look into a file and decode its first frames.

    Raises UnreadableVideo when there is no picture or one of the first `CHECKED_FRAMES` frames is damaged.
    """
    with _opened(path) as (container, stream):
        _check_whole(path, stream)
        frames, fps, seconds = _length(path, container, stream)
        first, decoded = None, 0
        for frame in _decoded(container, stream):
            first = first or frame
            decoded += 1
            if decoded == CHECKED_FRAMES:
                break
        if first is None:
            raise UnreadableVideo(path, "no frame of it can be decoded")
        turns = round(first.rotation / 90) % 4
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        return VideoInfo(
            path=path,
            frames=max(frames, decoded) if decoded == CHECKED_FRAMES else decoded,
            fps=fps,
            width=width,
            height=height,
            seconds=seconds,
            codec=stream.codec_context.codec.canonical_name,
            rotation=turns,
        )


def read_clip(video: VideoInfo, *, start: int, frames: int, stride: int, short_side: int) -> np.ndarray:
    """Frames start, start + stride, ... as uint8 `[frames, H, W, 3]`, `(H, W) = video.resized(short_side)`.

    `start` counts at the average frame rate: with a variable one the clip begins at the frame shown at `start / fps`
    seconds; from there on shown frames are counted. Where the video ends before the clip does, its last frame is
    repeated: a short video keeps its speed. Raises UnreadableVideo.
    """
    height, width = video.resized(short_side)
    if video.rotation % 2:
        height, width = width, height
    clip_thwc = np.empty((frames, height, width, 3), np.uint8)
    cut = _Cut(start=start, frames=frames, stride=stride, fps=video.fps)
    for back in _BACK_SECONDS:
        with _opened(video.path) as (container, stream):
            plan = _plan(container, stream, cut, back)
            if plan is not None:
                taken = _fill(clip_thwc, video.path, stream, plan)
                break
    if not taken:
        raise UnreadableVideo(video.path, f"no frame can be decoded at or after frame {start}")
    clip_thwc[taken:] = clip_thwc[taken - 1]
    return np.rot90(clip_thwc, video.rotation, axes=(1, 2))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its best video stream, one decoding thread; any failure inside becomes UnreadableVideo."""
    import av

    if av.logging.get_level() is None:  # silent still, but errors then carry FFmpeg's explanation
        av.logging.set_level(av.logging.PANIC)
    doing = "it cannot be opened"
    try:
        if not os.path.getsize(path):
            raise UnreadableVideo(path, "it is empty")
        # the prefix: a colon in a name is no protocol; the whitelist: a playlist must not reach the network
        with av.open(
            f"file:{path}", metadata_errors="replace", container_options={"protocol_whitelist": "file"}
        ) as container:
            doing = "it is damaged"
            yield container, _best_stream(path, container)
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UnreadableVideo(path, f"{doing}: {_plain(error)}") from error


def _best_stream(path: str, container: InputContainer) -> VideoStream:
    import av

    stream = container.streams.best("video")
    if not isinstance(stream, av.video.stream.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
        raise UnreadableVideo(path, "it has no video stream")
    if not hasattr(stream, "codec_context") or stream.codec_context is None:
        raise UnreadableVideo(path, "its codec is not known")
    stream.codec_context.thread_count = 1
    return stream


def _plain(error: Exception) -> str:
    """FFmpeg's or the system's words, without the error number and the path."""
    log = getattr(error, "log", None)
    detail = log[2].strip() if log else ""
    return " ".join(str(detail or getattr(error, "strerror", None) or error).split()).rstrip(".")


def _check_whole(path: str, stream: VideoStream) -> None:
    """An index at the head of the file tells whether the tail is missing."""
    entries = stream.index_entries
    if len(entries) and entries[-1].pos + entries[-1].size > os.path.getsize(path):
        raise UnreadableVideo(path, "its end is missing: the file is shorter than its own index says")


def _length(path: str, container: InputContainer, stream: VideoStream) -> tuple[int, float, float]:
    """Frames, frames per second and seconds, from the header where it has them, else counted in the packets."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    frames = stream.frames
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / 1e6
    if not frames and seconds and rate:
        frames = round(seconds * rate)
    if not frames:
        with _opened(path) as (again, same):
            frames = sum(1 for packet in again.demux(same) if packet.size)
    rate = rate or (frames / seconds if seconds else 25.0)
    return frames, rate, seconds or frames / rate


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames from the current place on. Damage before the first frame is passed over, later it is raised."""
    seen = False
    for packet in container.demux(stream):
        for frame in _decode(stream, packet, tolerant=not seen):
            seen = True
            yield frame


def _decode(stream: VideoStream, packet: Packet[Any] | None, *, tolerant: bool) -> list[VideoFrame]:
    import av

    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        if tolerant:
            return []
        raise


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """The clip that is asked for, in frames."""

    start: int
    frames: int
    stride: int
    fps: float

    @property
    def span(self) -> int:
        """Frames from the first to the last."""
        return (self.frames - 1) * self.stride + 1


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What to feed to the decoder for one clip, and which of the frames that come out belong to it."""

    packets: list[Packet[Any]]
    """from a key frame on, to the end of the clip or beyond"""
    times: list[int]
    """of all frames in the packets, as shown, sorted, in units of the stream's time base"""
    wanted: range
    """places in `times`"""
    by_time: bool
    """frames carry reliable timestamps; else they are told by their order"""


def _plan(container: InputContainer, stream: VideoStream, cut: _Cut, back: float) -> _Plan | None:
    """Read the packets of a clip from a key frame to its end, searching for that key frame `back` seconds before it.

    None when that is too late: seeking is not exact in every container, and the end may come sooner than the header
    says, where the clip then has to begin earlier.
    """
    base = float(stream.time_base or 1)
    zero = stream.start_time or 0
    # half a frame early: timestamps are rounded
    start = zero + (cut.start - 0.5) / cut.fps / base
    target = start - back / base
    sought = target > zero
    if sought and not _seek(container, stream, int(target)):
        return None
    packets = _read(container, stream, start, cut.span, skip=sought)
    all_times = _times(packets, by_dts=container.format.name == "avi")
    if not all_times and sought:
        return None
    if not all_times:
        all_times, start = list(range(len(packets))), cut.start
    times = sorted(all_times)
    if sought:  # what is shown before the key frame cannot be decoded from it
        times = times[bisect.bisect_left(times, all_times[0]) :]
        if times[0] > start or len(times) < cut.span:
            return None
    first = min(bisect.bisect_left(times, start), max(0, len(times) - cut.span))
    return _Plan(
        packets=packets,
        times=times,
        wanted=range(first, first + cut.frames * cut.stride, cut.stride),
        by_time=container.format.name != "avi" and len({packet.pts for packet in packets} - {None}) == len(packets),
    )


def _seek(container: InputContainer, stream: VideoStream, time: int) -> bool:
    """Go to a key frame at or before `time`; whether that can be done in this container."""
    import av

    if stream.codec_context.name == "h264" and "444" in (stream.codec_context.pix_fmt or ""):
        # H.264 in 4:4:4 by old x264 decodes to garbage unless its decoder has seen the encoder's version in packet one
        for packet in container.demux(stream):
            _decode(stream, packet, tolerant=True)
            break
    try:
        container.seek(time, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _read(container: InputContainer, stream: VideoStream, wanted: float, span: int, *, skip: bool) -> list[Packet[Any]]:
    """Packets in file order, enough for `span` frames from `wanted` on; `skip` those before the first key frame."""
    packets: list[Packet[Any]] = []
    enough = span + _REORDERED
    for packet in container.demux(stream):
        if not packet.size or (skip and not packets and not packet.is_keyframe):
            continue
        if packet.is_corrupt:
            raise UnreadableVideo(container.name.removeprefix("file:"), "it is damaged: a part of it is missing")
        packets.append(packet)
        time = packet.dts if packet.pts is None else packet.pts
        enough -= time is not None and time >= wanted
        if enough <= 0:
            break
    return packets


def _times(packets: list[Packet[Any]], *, by_dts: bool) -> list[int]:
    """When the frames of the packets are shown: presentation times, else decoding times, else nothing.

    AVI has decoding times alone; what stands in its presentation times is guessed.
    """
    times = [] if by_dts else [packet.pts for packet in packets if packet.pts is not None]
    return times or [packet.dts for packet in packets if packet.dts is not None]


def _fill(clip_thwc: np.ndarray, path: str, stream: VideoStream, plan: _Plan) -> int:
    """Decode and convert the frames of the plan into the clip; returns how many there were."""
    import av

    scaler = av.video.reformatter.VideoReformatter()
    order = {time: place for place, time in enumerate(plan.times)}
    skipping = plan.by_time and stream.codec_context.codec.canonical_name in _SKIPPING
    taken = shown = 0
    for packet in [*plan.packets, None]:
        used = packet is None or not skipping or _place(order, packet) in plan.wanted
        # a frame that no other frame refers to and nobody wants need not be decoded
        stream.codec_context.skip_frame = "DEFAULT" if used else "NONREF"
        for frame in _decode(stream, packet, tolerant=not shown):
            place = _place(order, frame) if plan.by_time else shown
            shown += 1
            if place in plan.wanted:
                if frame.is_corrupt:
                    raise UnreadableVideo(path, "a frame of it is damaged")
                _convert(frame, scaler, clip_thwc[taken])
                taken += 1
                if taken == len(clip_thwc):
                    return taken
    return taken


def _place(order: dict[int, int], timed: Packet[Any] | VideoFrame) -> int:
    """Which of the plan's frames this is, or -1."""
    return -1 if timed.pts is None else order.get(timed.pts, -1)


def _convert(frame: VideoFrame, scaler: VideoReformatter, out_hwc: np.ndarray) -> None:
    height, width, _ = out_hwc.shape
    picture = scaler.reformat(
        frame, width=width, height=height, format="rgb24", dst_color_range="JPEG", interpolation="BILINEAR", threads=1
    )
    plane = picture.planes[0]
    row_hs = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    out_hwc[:] = row_hs[:, : width * 3].reshape(height, width, 3)
