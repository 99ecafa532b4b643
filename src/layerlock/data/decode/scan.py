"""What a video file holds: the list of its frames, and whether clips of it can be read by seeking.

A file is *seekable* where the packets tell what a decode from the first byte shows, and where decoding can begin later:
every packet has a time of its own, nothing after a key frame needs what is before it, and the frames that were decoded
came in the order of these times. Everything else (times that are missing, reordered pictures without times of display,
lost packets, joined streams, a start in the middle of a group) is decoded once from start to end, which gives the list;
clips of it are read from the first byte, frames counted as the decoder gives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerlock.data.decode.bitstream import looker
from layerlock.data.decode.file import AVI, opened, packets_from_here, shown_frames, size_of
from layerlock.data.decode.picture import orientation
from layerlock.data.decode.span import Span
from layerlock.data.decode.survey import Survey
from layerlock.data.decode.timing import Timing, counted, timed
from layerlock.data.decode.video import UnreadableVideo, VideoInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CHECKED_FRAMES = 64
"""frames that are decoded from the start of every file, at least, to compare their order with the packets' times"""

CHECKED_PIXELS = 1 << 27
"""the same in pixels: a file of fewer than these, 64 frames of 1920 x 1080, is decoded to its end"""

MOST_COUNTED = 1 << 34
"""pixels that are decoded to count the frames of a file that cannot be sought: five minutes of 1920 x 1080"""

_TRUSTED = frozenset({AVI, "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
"""containers in which seeks lead to the key frame that is asked for"""

_OLD_X264 = 34
"""builds of x264 before this one made streams that are decoded otherwise once their first packet has been seen"""


def probe(path: str, span: Span | None = None) -> VideoInfo:
    """Look into a file: read its packets, decode its first frames, or all where only that can tell what it shows.

    `span` is where its bytes are if it is in a shard. Raises UnreadableVideo where nothing is shown, or where it is too
    long to be counted.
    """
    with opened(path, span=span, strict=True) as (container, stream):
        size = size_of(path, span)
        packets = _by_packets(size, container, stream)
    if packets is not None and packets.doubt:
        with opened(path, size, span, strict=True) as (container, stream):
            packets = packets if _confirmed(packets, container, stream) else None
    with opened(path, size, span) as (container, stream):
        rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        codec = stream.codec_context.codec.canonical_name
        if packets is None:
            first, when = _by_decoding(path, container, stream, rates)
        else:
            base = float(stream.time_base or 1)
            first, when = packets.first, timed([(time - packets.times[0]) * base for time in packets.times], rates)
    turns, mirrored = orientation(first)
    height, width = (first.width, first.height) if turns % 2 else (first.height, first.width)
    return VideoInfo(
        path=path,
        frames=when.frames,
        fps=when.fps,
        width=width,
        height=height,
        seconds=when.seconds,
        codec=codec,
        rotation=turns,
        mirrored=mirrored,
        bytes=size,
        seekable=packets is not None,
        zero=packets.times[0] if packets else 0,
        missing=when.missing if packets else (),
        times=() if packets else when.times,
        span=span,
    )


@dataclass
class _Packets:
    """What the packets of a file say of its frames."""

    times: list[int]
    """when each is shown, rising, in units of the time base"""
    first: VideoFrame
    """the first frame"""
    doubt: bool
    """whether all of it has to be decoded to be sure"""


def _by_packets(size: int, container: InputContainer, stream: VideoStream) -> _Packets | None:
    """What the packets say and the first frames confirm; None where the packets cannot tell what is shown."""
    context, name = stream.codec_context, container.format.name
    codec, extradata = context.codec.canonical_name, context.extradata or b""
    look = looker(codec, extradata)
    if look is None or name not in _TRUSTED or not stream.time_base or _is_cut_off(size, stream):
        return None
    survey, start = Survey(by_dts=name == AVI, known=extradata), _Start()
    for packet in packets_from_here(container, stream):
        data = bytes(packet)
        if survey.packets == 0 and codec == "h264" and _is_old_x264(data):
            return None
        if not survey.add(packet, look(data, packet.is_keyframe)):
            return None
        if not start.suffices():
            start.take(stream, packet)
            depth = survey.depth
    whole = not start.suffices()
    if whole:
        start.take(stream, None)
    times = survey.told()
    if times is None or start.first is None or not start.shows(times, whole=whole):
        return None
    reordering = bool(context.has_b_frames)
    if survey.depth and not reordering:
        return None
    unsure = survey.both_ways and not survey.depth and (reordering or codec != "hevc")
    doubt = not whole and (survey.doubt or survey.depth > depth or unsure)
    return _Packets(times=times, first=start.first, doubt=doubt)


@dataclass
class _Start:
    """The first frames that the decoder gives."""

    first: VideoFrame | None = None
    times: list[int | None] = field(default_factory=list)
    damaged: bool = False

    def take(self, stream: VideoStream, packet: Packet[Any] | None) -> None:
        """Decodes a packet."""
        import av

        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            frames, self.damaged = [], True
        for frame in frames:
            self.first = self.first or frame
            self.times.append(frame.pts)
            self.damaged = self.damaged or frame.is_corrupt

    def suffices(self) -> bool:
        """Whether enough was decoded."""
        count = len(self.times)
        pixels = self.first.width * self.first.height if self.first else 0
        return count >= CHECKED_FRAMES and count * pixels >= CHECKED_PIXELS

    def shows(self, times: list[int], *, whole: bool) -> bool:
        """Whether these were the first of the frames at `times`, or all, in this order and undamaged."""
        enough = len(self.times) == len(times) if whole else len(self.times) <= len(times)
        return enough and not self.damaged and self.times == times[: len(self.times)]


def _confirmed(packets: _Packets, container: InputContainer, stream: VideoStream) -> bool:
    """Whether a decode of all of it shows the frames that the packets tell of, in the order of their times."""
    start = _Start()
    for packet in packets_from_here(container, stream):
        start.take(stream, packet)
    start.take(stream, None)
    return start.shows(packets.times, whole=True)


def _by_decoding(
    path: str, container: InputContainer, stream: VideoStream, rates: list[float]
) -> tuple[VideoFrame, Timing]:
    """The first frame, and how many there are and when they are shown, by a decode from start to end."""
    first, times, pixels = None, [], 0
    for frame in shown_frames(container, stream):
        first = first or frame
        times.append(frame.pts)
        pixels += frame.width * frame.height
        if pixels > MOST_COUNTED:
            raise UnreadableVideo(
                path,
                "its frames can only be counted by decoding all of it, and it is too long for that; "
                "re-encode it (ffmpeg -i FILE -c:v libx264 NEW.mp4)",
            )
    if first is None:
        raise UnreadableVideo(path, "none of its frames can be decoded")
    return first, counted([None if time is None else float(time * (stream.time_base or 1)) for time in times], rates)


def _is_cut_off(size: int, stream: VideoStream) -> bool:
    """An index at the head of the file tells whether the tail is missing."""
    entries = stream.index_entries
    return len(entries) > 0 and entries[-1].pos + entries[-1].size > size


def _is_old_x264(data: bytes) -> bool:
    named = re.search(rb"x264 - core (\d+)", data)
    return named is not None and int(named[1]) < _OLD_X264
