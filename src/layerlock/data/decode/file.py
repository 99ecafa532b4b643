"""Opening a video file with PyAV, and its frames as a player shows them.

The one truth about what a file holds is `shown_frames`: what the decoder gives from the first byte of the file on, in
the order in which it gives it. Packets that are flagged to be discarded (edit lists, trims without re-encoding) are
decoded and not shown; damage is concealed by the decoder, as in any player, or passed over where it makes no picture.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerlock.data.decode.span import Span, SpanFile
from layerlock.data.decode.video import UnreadableVideo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LISTS = frozenset({"concat", "dash", "hls", "imf"})
"""formats that open other files"""

AVI = "avi"
"""the container without times of display"""

MOST_PIXELS = 1 << 26
"""of a picture: 8192 x 8192; a header that asks for more is forged or no video"""


@contextlib.contextmanager
def opened(
    path: str, size: int = 0, span: Span | None = None, *, strict: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its best video stream, one decoding thread; any failure inside becomes UnreadableVideo.

    So does a file that is not `size` bytes long, as it was when it was indexed (0: whatever length it has). `span` is
    where the bytes are if the video is in a shard. A `strict` decoder raises an error where it would otherwise conceal
    damage.
    """
    import av

    if av.logging.get_level() is None:  # silent still, but errors then carry FFmpeg's explanation
        av.logging.set_level(av.logging.PANIC)
    doing = "it cannot be opened"
    try:
        now = size_of(path, span)
        if not now:
            raise UnreadableVideo(path, "it is empty")
        if size not in (0, now):
            raise changed(path)
        # the whitelist: a playlist must not reach the network, and one in a shard no file
        options = {"protocol_whitelist": "file" if span is None else "none"}
        with av.open(_file(path, span), "r", metadata_errors="replace", container_options=options) as container:
            doing = "it is damaged"
            if container.format.name in _LISTS:
                raise UnreadableVideo(path, "it is a list of other files")
            stream = _best_stream(path, container)
            stream.codec_context.thread_count = 1
            # without it columns that are to be cut off on the left stay, as many as keep rows aligned in memory
            stream.codec_context.flags |= av.codec.context.Flags.unaligned
            explode = {"err_detect": "explode"} if strict else {}
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS), **explode}
            yield container, stream
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UnreadableVideo(path, f"{doing}: {_plain(error)}") from error


def size_of(path: str, span: Span | None) -> int:
    """Bytes of a video. Raises OSError."""
    return os.path.getsize(path) if span is None else span.bytes


def _file(path: str, span: Span | None) -> str | SpanFile:
    """What PyAV opens. The prefix: a colon in a name is no protocol."""
    if span is None:
        return f"file:{path}"
    file = SpanFile(span, path)
    if not file.matches:
        raise UnreadableVideo(path, "its shard has changed since it was indexed")
    return file


def changed(path: str) -> UnreadableVideo:
    """The error for a file in which something else is found than when it was indexed."""
    return UnreadableVideo(path, "the file has changed since it was indexed")


def packets_from_here(container: InputContainer, stream: VideoStream) -> Iterator[Packet[Any]]:
    """The packets of the stream that hold anything; what cannot be read ends them, as it ends a player.

    AVI has times of decoding alone: what stands in its times of display is guessed, and is replaced.
    """
    import av

    guessed = container.format.name == AVI
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packet.pts = packet.dts if guessed else packet.pts
                    yield packet
            return
        except IndexError:  # a stream that PyAV does not know begins in the middle of the file
            continue
        except av.FFmpegError:
            return


def shown_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that a player shows, from the first byte of the file on, in the order of the decoder."""
    for packet in packets_from_here(container, stream):
        yield from decode_leniently(stream, packet)
    yield from decode_leniently(stream, None)


def decode_leniently(stream: VideoStream, packet: Packet[Any] | None) -> list[VideoFrame]:
    """The frames that the decoder gives for a packet (None: those that are left); none where it makes nothing of it."""
    import av

    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        return []


def _best_stream(path: str, container: InputContainer) -> VideoStream:
    import av

    stream = container.streams.best("video")
    if not isinstance(stream, av.video.stream.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
        raise UnreadableVideo(path, "it has no video stream")
    if not hasattr(stream, "codec_context") or stream.codec_context is None:
        raise UnreadableVideo(path, "its codec is not known")
    return stream


def _plain(error: Exception) -> str:
    """FFmpeg's or the system's words, without the error number and the path."""
    log = getattr(error, "log", None)
    detail = log[2].strip() if log else ""
    return " ".join(str(detail or getattr(error, "strerror", None) or error).split()).rstrip(".")
