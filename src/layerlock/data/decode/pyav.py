"""Video files to frames by PyAV: what a file holds (`probe`) and clips of it (`read_clips`).

Frames come in the order in which they are shown, upright (rotation tags are obeyed), as 8-bit full-range RGB whatever
the pixel format. Pixels are taken to be square. Only frames that are used are converted, straight to the wanted size.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerlock.data.decode.video import Clips, Cut, UnreadableVideo, VideoInfo

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

_NEVER_SOUGHT = frozenset({"mpeg"})
"""containers that are read from their start: after a seek in a program stream timestamps are off by a frame"""

_LISTS = frozenset({"concat", "dash", "hls", "imf"})
"""formats that open other files"""

_LACKING = 0.9
"""a file that ends before this share of its length has been cut off"""

MOST_PIXELS = 1 << 26
"""of a picture: 8192 x 8192; a header that asks for more is forged or no video"""

BACK_SECONDS = (0.0, 2.0, 10.0, math.inf)
"""how far before the clip to look for its key frame, one try after the other"""


def probe(path: str) -> VideoInfo:
    """Look into a file and decode its first frames.

    Raises UnreadableVideo when there is no picture or one of the first `CHECKED_FRAMES` frames is damaged.
    """
    with opened(path) as (container, stream):
        _check_whole(path, stream)
        frames, fps, seconds = _length(path, container, stream)
        _check_end(path, seconds)
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
            bytes=os.path.getsize(path),
        )


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> Clips:
    """The clips `cuts`, all of one length, resized to `size` (height, width). Raises UnreadableVideo."""
    height, width = reversed(size) if video.rotation % 2 else size
    clips_nthwc = np.empty((len(cuts), cuts[0].frames, height, width, 3), np.uint8)
    decoded: int | None = None
    for back in BACK_SECONDS:
        with opened(video.path, video.bytes) as (container, stream):
            found = packets_of(container, stream, video, cuts, back)
            if found is not None:
                wanted = [cut.places(found.seconds, video.fps) for cut in cuts]
                decoded = _fill(clips_nthwc, video.path, stream, found, wanted, last_try=back == math.inf)
        if decoded is not None:
            break
    assert decoded is not None, "the last try gives frames or raises"
    return Clips(video_nthwc=np.rot90(clips_nthwc, video.rotation, axes=(2, 3)), decoded=decoded)


def read_whole(video: VideoInfo, *, size: tuple[int, int], most: int) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, in seconds, and all frames, uint8 `[F, H, W, 3]`, resized to `size` (height, width).

    Raises UnreadableVideo, also where there are more frames than `most`.
    """
    height, width = reversed(size) if video.rotation % 2 else size
    with opened(video.path, video.bytes) as (container, stream):
        packets = _read(container, stream, math.inf, 1, skip=False)
        if len(packets) > most:
            raise UnreadableVideo(video.path, f"it has {len(packets)} frames, more than {most}")
        found = _timed(container, stream, video, packets, _times(container, packets))
        frame_nhwc = np.empty((1, len(found.times), height, width, 3), np.uint8)
        _fill(frame_nhwc, video.path, stream, found, [list(range(len(found.times)))], last_try=True)
    return found.seconds, np.rot90(frame_nhwc[0], video.rotation, axes=(1, 2))


@contextlib.contextmanager
def opened(path: str, size: int = 0) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its best video stream, one decoding thread; any failure inside becomes UnreadableVideo.

    So does a file that is not `size` bytes long, as it was when it was looked into (0: whatever length it has).
    """
    import av

    if av.logging.get_level() is None:  # silent still, but errors then carry FFmpeg's explanation
        av.logging.set_level(av.logging.PANIC)
    doing = "it cannot be opened"
    try:
        now = os.path.getsize(path)
        if not now:
            raise UnreadableVideo(path, "it is empty")
        if size not in (0, now):
            raise UnreadableVideo(path, "it is not the file that it was when it was looked into")
        # the prefix: a colon in a name is no protocol; the whitelist: a playlist must not reach the network
        with av.open(
            f"file:{path}", metadata_errors="replace", container_options={"protocol_whitelist": "file"}
        ) as container:
            doing = "it is damaged"
            if container.format.name in _LISTS:
                raise UnreadableVideo(path, "it is a list of other files")
            yield container, _best_stream(path, container)
    except IndexError as error:  # PyAV knows only the streams that were there at the start
        raise UnreadableVideo(path, f"{doing}: a stream begins in the middle of it") from error
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
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
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


def _check_end(path: str, seconds: float) -> None:
    """A container without an index at its head can be cut off anywhere: what is near its end tells."""
    with opened(path) as (container, stream):
        if container.format.name.startswith("mov") or not stream.time_base:
            return
        base, zero = float(stream.time_base), stream.start_time or 0
        if not _seek(container, stream, int(zero + seconds * _LACKING / base)):
            return
        last = max((packet.pts for packet in container.demux(stream) if packet.pts is not None), default=None)
    held = seconds if last is None else max(last, last - zero) * base  # some count a late start into the length
    if held < seconds * _LACKING - 1:
        raise UnreadableVideo(path, f"its end is missing: it says that it lasts {seconds:.1f} s and holds {held:.1f}")


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
        with opened(path) as (again, same):
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
class Packets:
    """What to feed to the decoder, and when the frames that come out of it are shown."""

    packets: list[Packet[Any]]
    """from a key frame on"""
    times: list[int]
    """of all frames in the packets, sorted, in units of the stream's time base"""
    seconds: list[float]
    """the same in seconds from the start of the video"""
    by_time: bool
    """frames carry reliable timestamps; else they are told by their order"""


def _timed(
    container: InputContainer, stream: VideoStream, video: VideoInfo, packets: list[Packet[Any]], times: list[int]
) -> Packets:
    """Packets with the times of their frames, or with their numbers where there are no times."""
    if not packets:
        raise UnreadableVideo(video.path, "nothing of it can be read")
    zero, base = stream.start_time or 0, float(stream.time_base or 1)
    return Packets(
        packets=packets,
        times=sorted(times) or list(range(len(packets))),
        seconds=[(time - zero) * base for time in sorted(times)] or [i / video.fps for i in range(len(packets))],
        by_time=container.format.name != "avi" and len({packet.pts for packet in packets} - {None}) == len(packets),
    )


def packets_of(
    container: InputContainer, stream: VideoStream, video: VideoInfo, cuts: Sequence[Cut], back: float
) -> Packets | None:
    """The packets of the clips from a key frame on, which is searched for `back` seconds before the first clip.

    None when that is too late: seeking is not exact in every container, and the end may come sooner than the header
    says, where a clip then has to begin earlier.
    """
    base = float(stream.time_base or 1)
    zero = stream.start_time or 0
    # half a frame early: timestamps are rounded
    starts = [zero + (cut.start - 0.5) / video.fps / base for cut in cuts]
    target = min(starts) - back / base
    sought = target > zero and _can_seek(container, stream)
    if sought and not _seek(container, stream, int(target)):
        return None
    last = cuts[starts.index(max(starts))]
    beyond, count = max(starts), last.span(video.fps)
    if last.seconds is not None:
        beyond, count = beyond + (last.frames - 1) * last.seconds / base, 1
    packets = _read(container, stream, beyond, count + _REORDERED, skip=sought)
    times = _times(container, packets)
    if not sought:
        return _timed(container, stream, video, packets, times)
    times = [time for time in times if time >= times[0]]  # what is shown before the key frame cannot be decoded from it
    if not times or times[0] > min(starts):
        return None
    found = _timed(container, stream, video, packets, times)
    return None if any(cut.too_long(found.seconds, video.fps) for cut in cuts) else found


def _can_seek(container: InputContainer, stream: VideoStream) -> bool:
    """Whether frames can be told apart after a seek. In AVI they are counted, which reordering puts off."""
    if container.format.name == "avi":
        return not stream.codec_context.has_b_frames
    return container.format.name not in _NEVER_SOUGHT


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


def _read(
    container: InputContainer, stream: VideoStream, beyond: float, count: int, *, skip: bool
) -> list[Packet[Any]]:
    """Packets in file order, up to `count` of those from time `beyond` on; `skip` those before the first key frame."""
    packets: list[Packet[Any]] = []
    for packet in container.demux(stream):
        if not packet.size or (skip and not packets and not packet.is_keyframe):
            continue
        if packet.is_corrupt:
            raise UnreadableVideo(container.name.removeprefix("file:"), "it is damaged: a part of it is missing")
        packets.append(packet)
        time = packet.dts if packet.pts is None else packet.pts
        count -= time is not None and time >= beyond
        if count <= 0:
            break
    return packets


def _times(container: InputContainer, packets: list[Packet[Any]]) -> list[int]:
    """When the frames of the packets are shown: presentation times, else decoding times, else nothing.

    AVI has decoding times alone; what stands in its presentation times is guessed.
    """
    times = [] if container.format.name == "avi" else [packet.pts for packet in packets if packet.pts is not None]
    return times or [packet.dts for packet in packets if packet.dts is not None]


def _fill(
    clips_nthwc: np.ndarray,
    path: str,
    stream: VideoStream,
    found: Packets,
    wanted: list[list[int]],
    *,
    last_try: bool,
) -> int | None:
    """Decode and convert frames into the clips, whose places are `wanted`; returns how many were decoded.

    None where the first one does not come out, since decoding began too late for it. A later one that does not (the
    end of a damaged file, say) is the one before it.
    """
    import av

    scaler = av.video.reformatter.VideoReformatter()
    order = {time: place for place, time in enumerate(found.times)}
    skipping = found.by_time and stream.codec_context.codec.canonical_name in _SKIPPING
    uses = _uses(wanted)
    taken: dict[int, np.ndarray] = {}
    shown = 0
    for packet in [*found.packets, None]:
        used = packet is None or not skipping or _place(order, packet) in uses
        # a frame that no other frame refers to and nobody wants need not be decoded
        stream.codec_context.skip_frame = "DEFAULT" if used else "NONREF"
        for frame in _decode(stream, packet, tolerant=not shown):
            place = _place(order, frame) if found.by_time else shown
            shown += 1
            if place in uses and place not in taken:
                if frame.is_corrupt:
                    raise UnreadableVideo(path, "a frame of it is damaged")
                taken[place] = clips_nthwc[uses[place][0]]
                convert(frame, scaler, taken[place])
        if len(taken) == len(uses):
            break
    if min(uses) not in taken and not last_try:
        return None
    if not taken:
        raise UnreadableVideo(path, f"no frame can be decoded at or after its frame {min(uses)}")
    _spread(clips_nthwc, uses, taken)
    return shown


def _uses(wanted: list[list[int]]) -> dict[int, list[tuple[int, int]]]:
    """For each place, in rising order, the (clip, frame of the clip) that it goes to."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for clip, places in enumerate(wanted):
        for moment, place in enumerate(places):
            uses.setdefault(place, []).append((clip, moment))
    return dict(sorted(uses.items()))


def _spread(clips_nthwc: np.ndarray, uses: dict[int, list[tuple[int, int]]], taken: dict[int, np.ndarray]) -> None:
    """Copies each frame to all the clips that it is part of."""
    latest = taken[min(taken)]
    for place, targets in uses.items():
        latest = taken.get(place, latest)
        for target in targets if place not in taken else targets[1:]:
            clips_nthwc[target] = latest


def _place(order: dict[int, int], timed: Packet[Any] | VideoFrame) -> int:
    """Which frame this is, or -1."""
    return -1 if timed.pts is None else order.get(timed.pts, -1)


def convert(frame: VideoFrame, scaler: VideoReformatter, out_hwc: np.ndarray) -> None:
    height, width, _ = out_hwc.shape
    picture = scaler.reformat(
        frame, width=width, height=height, format="rgb24", dst_color_range="JPEG", interpolation="BILINEAR", threads=1
    )
    plane = picture.planes[0]
    row_hs = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    out_hwc[:] = row_hs[:, : width * 3].reshape(height, width, 3)
