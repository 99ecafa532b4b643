"""Clips of video files, and whole files, by PyAV.

Frames come in the order in which they are shown, upright (rotations and mirrors are obeyed), as 8-bit full-range RGB
whatever the pixel format. Pixels are taken to be square. Only frames that are used are converted, straight to the
wanted size. What is read by seeking is what a decode from the first byte gives, bit for bit: at the first sign of
damage, or of a seek that leads elsewhere, the file is read from its first byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerlock.data.decode.bitstream import looker
from layerlock.data.decode.file import changed, decode_leniently, opened, packets_from_here, shown_frames
from layerlock.data.decode.picture import convert, upright
from layerlock.data.decode.scan import probe
from layerlock.data.decode.video import Clips, Cut, UnreadableVideo, VideoInfo

__all__ = ["frame_times", "frames_of", "probe", "read_clips", "read_whole"]

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_REORDERED = 32
"""packets to read beyond the clip: more than any codec reorders"""

_SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
"""codecs whose decoders leave out single frames on demand, exactly"""

BACK_SECONDS = (0.0, 2.0, 10.0, math.inf)
"""how far before the clip to look for its key frame, one try after the other"""

Uses = dict[int, list[tuple[int, int]]]
"""for each place in a video, rising, the (clip, frame of the clip) that it goes to"""


class _Damage(Exception):
    """The decoder does not give what the packets promise."""


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> Clips:
    """The clips `cuts`, all of one length, resized to `size` (height, width). Raises UnreadableVideo."""
    height, width = reversed(size) if video.rotation % 2 else size
    clips_nthwc = np.empty((len(cuts), cuts[0].frames, height, width, 3), np.uint8)
    decoded = _by_seeking(clips_nthwc, video, cuts) if video.seekable else None
    if decoded is None:
        decoded = _from_the_start(clips_nthwc, video, cuts)
    return Clips(video_nthwc=upright(clips_nthwc, video.rotation, video.mirrored, axes=(2, 3)), decoded=decoded)


def read_whole(video: VideoInfo, *, size: tuple[int, int], most: int) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, in seconds, and all frames, uint8 `[F, H, W, 3]`, resized to `size` (height, width).

    Raises UnreadableVideo, also where there are more frames than `most`.
    """
    if video.frames > most:
        raise UnreadableVideo(video.path, f"it has {video.frames} frames, more than {most}")
    from av.video.reformatter import VideoReformatter

    height, width = reversed(size) if video.rotation % 2 else size
    frame_nhwc, scaler = np.empty((video.frames, height, width, 3), np.uint8), VideoReformatter()
    time_n: list[float] = []
    for time, frame in frames_of(video):
        convert(video.path, frame, scaler, frame_nhwc[len(time_n)])
        time_n.append(time)
    return time_n, upright(frame_nhwc, video.rotation, video.mirrored, axes=(1, 2))


def frames_of(video: VideoInfo) -> Iterator[tuple[float, VideoFrame]]:
    """When each frame is shown, in seconds, and the frame as it is decoded, not upright.

    Raises UnreadableVideo, at the latest after the last frame, where a part is damaged or others come than are known.
    """
    with opened(video.path, video.bytes, video.span) as (container, stream):
        base, place, latest = float(stream.time_base or 1), -1, -math.inf
        time_n = () if video.seekable else video.time_n()
        for place, frame in enumerate(shown_frames(container, stream)):
            if place == video.frames:
                raise changed(video.path)
            if not video.seekable:
                yield time_n[place], frame
            elif frame.pts is None or frame.pts <= latest:
                raise UnreadableVideo(video.path, "a part of it is damaged")
            else:
                latest = frame.pts
                yield video.closed_up((latest - video.zero) * base), frame
    if place + 1 < video.frames:
        raise UnreadableVideo(video.path, "a part of it is damaged") if video.seekable else changed(video.path)


def frame_times(video: VideoInfo) -> Sequence[float]:
    """When each frame is shown, in seconds from the first one, gaps closed up; no frame is decoded.

    Raises UnreadableVideo.
    """
    if not video.seekable:
        return video.time_n()
    with opened(video.path, video.bytes, video.span) as (container, stream):
        look = looker(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
        times = sorted(
            packet.pts
            for packet in packets_from_here(container, stream)
            if packet.pts is not None
            and not packet.is_discard
            and (look is None or look(bytes(packet), packet.is_keyframe).shown)
        )
        base = float(stream.time_base or 1)
    if len(times) != video.frames:
        raise changed(video.path)
    return [video.closed_up((time - video.zero) * base) for time in times]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What to feed to the decoder, and when the frames that come out of it are shown."""

    packets: list[Packet[Any]]
    """from a key frame on"""
    key: int
    """time of the first one"""
    times: list[int]
    """of all frames in the packets that are shown, rising, in units of the stream's time base"""
    seconds: list[float]
    """the same in seconds from the start of the video, gaps closed up"""
    entries: frozenset[int]
    """times at which decoding can begin"""


def section_of(
    container: InputContainer, stream: VideoStream, video: VideoInfo, cuts: Sequence[Cut], back: float
) -> Section | None:
    """The packets of clips of a seekable file from a key frame on, which is searched for `back` seconds before them.

    None when that is too late, or leads to where decoding cannot begin.
    """
    base = float(stream.time_base or 1)
    # half a frame early: timestamps are rounded
    starts = [video.zero + (video.place_with_gaps(cut.start) - 0.5) / video.fps / base for cut in cuts]
    target = min(starts) - back / base
    sought = target > video.zero
    if sought and not _seek(container, stream, int(target)):
        return None
    last = cuts[starts.index(max(starts))]
    length, count = 0.0, last.span(video.fps)
    if last.seconds is not None and not video.missing:
        length, count = (last.frames - 1) * last.seconds / base, 1
    section = _read(container, stream, video, max(starts), length, count + _REORDERED)
    if section is None or not sought:
        return section
    late = section.key > min(starts) or any(cut.too_long(section.seconds, video.fps) for cut in cuts)
    return None if late else section


def _seek(container: InputContainer, stream: VideoStream, time: int) -> bool:
    """Go to a key frame at or before `time`; whether that can be done in this container."""
    import av

    context = stream.codec_context
    if context.name == "mpeg4" or (context.name == "h264" and "444" in (context.pix_fmt or "")):
        # the first packet of the file names the encoder, and the decoder follows that one's habits
        for packet in packets_from_here(container, stream):
            decode_leniently(stream, packet)
            break
    try:
        container.seek(time, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _read(
    container: InputContainer, stream: VideoStream, video: VideoInfo, start: float, length: float, count: int
) -> Section | None:
    """Packets in file order from the first key frame on, up to `count` that are shown a `length` or more after the
    first one that is shown at time `start` or later.

    None where decoding cannot begin at that key frame, or there is nothing.
    """
    codec, base = stream.codec_context.codec.canonical_name, float(stream.time_base or 1)
    look = looker(codec, stream.codec_context.extradata)
    packets: list[Packet[Any]] = []
    times: list[int] = []
    entries: list[int] = []
    begin = math.inf
    for packet in packets_from_here(container, stream):
        if not packets and not packet.is_keyframe:
            continue
        if packet.pts is None or look is None:
            return None
        seen = look(bytes(packet), packet.is_keyframe) if packet.is_keyframe or codec in ("vp8", "vp9") else None
        if seen and seen.entry:
            entries.append(packet.pts)
        if not entries:
            return None
        packets.append(packet)
        # what is shown before the key frame cannot be decoded from it
        if packet.is_discard or (seen and not seen.shown) or packet.pts < entries[0]:
            continue
        times.append(packet.pts)
        if packet.pts >= start:
            begin = min(begin, packet.pts)  # after `start` the picture may stand still for long
            count -= packet.pts >= begin + length
        if count <= 0:
            break
    if not times:
        return None
    times.sort()
    seconds = [video.closed_up((time - video.zero) * base) for time in times]
    return Section(packets=packets, key=entries[0], times=times, seconds=seconds, entries=frozenset(entries))


def _by_seeking(clips_nthwc: np.ndarray, video: VideoInfo, cuts: Sequence[Cut]) -> int | None:
    """Decodes the clips from the key frame before them; how many frames were decoded for that.

    None where anything is not as it should be.
    """
    for back in BACK_SECONDS:
        with opened(video.path, video.bytes, video.span, strict=True) as (container, stream):
            section = section_of(container, stream, video, cuts, back)
            if section is not None:
                uses = _uses([cut.places(section.seconds, video.fps) for cut in cuts])
                try:
                    return _fill(video.path, clips_nthwc, uses, _promised(stream, section, uses))
                except _Damage:
                    return None
    return None


def _from_the_start(clips_nthwc: np.ndarray, video: VideoInfo, cuts: Sequence[Cut]) -> int:
    """The same by a decode from the first byte of the file on."""
    with opened(video.path, video.bytes, video.span) as (container, stream):
        if not video.seekable:
            uses = _uses([cut.places(video.time_n(), video.fps) for cut in cuts])
            try:
                return _fill(video.path, clips_nthwc, uses, enumerate(shown_frames(container, stream)))
            except _Damage:
                raise changed(video.path) from None
        section = section_of(container, stream, video, cuts, math.inf)
        if section is None:
            raise changed(video.path)
        uses = _uses([cut.places(section.seconds, video.fps) for cut in cuts])
        try:
            return _fill(video.path, clips_nthwc, uses, _concealed(stream, section))
        except _Damage as damage:
            raise UnreadableVideo(video.path, f"it is damaged: {damage} cannot be decoded") from None


def _promised(stream: VideoStream, section: Section, uses: Uses) -> Iterator[tuple[int, VideoFrame]]:
    """Frames and their places, those of no use left out where that can be done. Raises _Damage."""
    import av

    place_of = {time: place for place, time in enumerate(section.times)}
    skipping = stream.codec_context.codec.canonical_name in _SKIPPING
    for packet in [*section.packets, None]:
        used = packet is None or not skipping or _place(place_of, packet) in uses
        # a frame that no other frame refers to and nobody wants need not be decoded
        stream.codec_context.skip_frame = "DEFAULT" if used else "NONREF"
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            raise _Damage("a frame") from error
        for frame in frames:
            if frame.is_corrupt:
                raise _Damage("a frame")
            yield _place(place_of, frame), frame


def _concealed(stream: VideoStream, section: Section) -> Iterator[tuple[int, VideoFrame]]:
    """All frames and their places, as a player shows them."""
    place_of = {time: place for place, time in enumerate(section.times)}
    for packet in [*section.packets, None]:
        for frame in decode_leniently(stream, packet):
            yield _place(place_of, frame), frame


def _place(place_of: dict[int, int], timed: Packet[Any] | VideoFrame) -> int:
    """Which frame this is, or -1."""
    return -1 if timed.pts is None else place_of.get(timed.pts, -1)


def _fill(path: str, clips_nthwc: np.ndarray, uses: Uses, frames: Iterable[tuple[int, VideoFrame]]) -> int:
    """Converts frames into the clips; returns how many were decoded. Raises _Damage where one does not come."""
    from av.video.reformatter import VideoReformatter

    scaler, waiting = VideoReformatter(), set(uses)
    for decoded, (place, frame) in enumerate(frames, 1):
        if place in waiting:
            waiting.remove(place)
            first, *others = uses[place]
            convert(path, frame, scaler, clips_nthwc[first])
            for other in others:
                clips_nthwc[other] = clips_nthwc[first]
        if not waiting:
            return decoded
    raise _Damage(f"frame {min(waiting)}")


def _uses(wanted: Sequence[Sequence[int]]) -> Uses:
    uses: Uses = {}
    for clip, places in enumerate(wanted):
        for moment, place in enumerate(places):
            uses.setdefault(place, []).append((clip, moment))
    return uses
