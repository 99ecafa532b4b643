"""Scans of ScanNet (`.sens`, version 4): JPEG colour and zlib-compressed 16-bit depth of every frame, in one file.

All numbers are little-endian. The file: version (uint32), the sensor's name (uint64 length, bytes), four 4 x 4 float32
matrices, the compression of colour and of depth (int32 each), width and height of both (uint32), what divides a depth
to make it metres (float32), the number of frames (uint64); then of each frame a pose (16 float32), two times and the
sizes of colour and depth (uint64 each), and the bytes of both. Only what is asked for is read.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from layerlock.data.decode.images import DEPTH_FPS, decode_picture, nearest
from layerlock.data.decode.picture import convert
from layerlock.data.decode.video import SENS, Clips, Cut, UnreadableVideo, VideoInfo

VERSION = 4
JPEG, PNG, ZLIB = 2, 1, 1
"""kinds of compression that are read"""
_MATRICES = 4 * 16 * 4
_LONGEST_NAME, _MOST_FRAMES, _MOST_PIXELS = 4096, 10_000_000, 1 << 26
_SIZES = struct.Struct("<iiIIIIfQ")
_FRAME = struct.Struct("<64xQQQQ")


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """Where the frames of a file are: (begin, bytes of colour, bytes of depth)."""

    colour: tuple[int, int]
    """height, width"""
    depth: tuple[int, int]
    shift: float
    frames: tuple[tuple[int, int, int], ...]


def probe(path: str) -> VideoInfo:
    """Reads the header, finds every frame, and decodes the first and the last. Raises UnreadableVideo."""
    scan, size = _scan(path), os.path.getsize(path)
    frames = len(scan.frames)
    video = VideoInfo(
        path=path,
        frames=frames,
        fps=DEPTH_FPS,
        width=scan.colour[1],
        height=scan.colour[0],
        seconds=frames / DEPTH_FPS,
        codec=SENS,
        rotation=0,
        bytes=size,
    )
    last = Cut(start=frames - 1, frames=1, stride=1)
    for cut in (Cut(start=0, frames=1, stride=1), last):
        read_clips(video, [cut], size=(16, 16))
        read_depth(video, [cut], size=(16, 16))
    return video


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> Clips:
    """The clips `cuts`, all of one length, resized to `size` (height, width). Raises UnreadableVideo."""
    wanted, which_nt = _wanted(video, cuts)
    return Clips(video_nthwc=_colour(video, wanted, size)[which_nt], decoded=len(wanted))


def read_whole(video: VideoInfo, *, size: tuple[int, int], most: int) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, in seconds, and all frames, uint8 `[F, H, W, 3]`, resized to `size` (height, width).

    Raises UnreadableVideo, also where there are more frames than `most`.
    """
    if video.frames > most:
        raise UnreadableVideo(video.path, f"it has {video.frames} frames, more than {most}")
    return _seconds(video), _colour(video, range(video.frames), size)


def read_depth(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> np.ndarray:
    """Depth of the clips in metres, float32 `[N, T, H, W]`, each value that of the nearest pixel; 0 where nothing was
    measured. Raises UnreadableVideo.
    """
    scan = _scan(video.path)
    wanted, which_nt = _wanted(video, cuts)
    with _open(video.path) as file:
        maps = [nearest(_depth_map(video.path, file, scan, place), *size) for place in wanted]
    return (np.stack(maps) / np.float32(scan.shift)).astype(np.float32)[which_nt]


def _colour(video: VideoInfo, places: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Frames as uint8 `[K, H, W, 3]`."""
    from av.video.reformatter import VideoReformatter

    scan, scaler = _scan(video.path), VideoReformatter()
    frame_khwc = np.empty((len(places), *size, 3), np.uint8)
    with _open(video.path) as file:
        for frame_hwc, place in zip(frame_khwc, places, strict=True):
            begin, length, _ = scan.frames[place]
            picture = decode_picture(video.path, f"of frame {place}", _take(video.path, file, begin, length))
            if (picture.height, picture.width) != scan.colour:
                raise UnreadableVideo(video.path, f"frame {place} is {picture.width}x{picture.height}")
            convert(video.path, picture, scaler, frame_hwc)
    return frame_khwc


def _depth_map(path: str, file: BinaryIO, scan: _Scan, place: int) -> np.ndarray:
    """uint16 `[H, W]`."""
    begin, colour, length = scan.frames[place]
    wanted = scan.depth[0] * scan.depth[1] * 2
    try:
        depth_bytes = zlib.decompressobj().decompress(_take(path, file, begin + colour, length), wanted + 1)
    except zlib.error as error:
        raise UnreadableVideo(path, f"the depth of frame {place} is damaged: {error}") from None
    if len(depth_bytes) != wanted:
        raise UnreadableVideo(path, f"the depth of frame {place} is not {scan.depth[1]}x{scan.depth[0]} pixels")
    return np.frombuffer(depth_bytes, "<u2").reshape(scan.depth)


def _scan(path: str) -> _Scan:
    """The frames of a file, looked up again when it has changed."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UnreadableVideo(path, f"it cannot be opened: {error.strerror}") from error
    return _scan_at(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _scan_at(path: str, size: int, changed: int) -> _Scan:
    with _open(path) as file:
        version, length = struct.unpack("<IQ", _take(path, file, 0, 12))
        if version != VERSION or length > _LONGEST_NAME:
            raise UnreadableVideo(path, f"it is not a .sens file of version {VERSION}")
        begin = 12 + length + _MATRICES
        colour_kind, depth_kind, *sides, shift, count = _SIZES.unpack(_take(path, file, begin, _SIZES.size))
        if colour_kind not in (PNG, JPEG) or depth_kind != ZLIB:
            raise UnreadableVideo(
                path,
                f"its compression ({colour_kind}, {depth_kind}) is not supported: JPEG or PNG with zlib depth are",
            )
        if not 0 < count <= _MOST_FRAMES or not shift > 0 or not 0 < sides[2] * sides[3] <= _MOST_PIXELS:
            raise UnreadableVideo(path, f"its header is damaged: {count} frames, depth {sides[2]}x{sides[3]} / {shift}")
        frames = _frames(path, file, begin + _SIZES.size, count, size)
    return _Scan(colour=(sides[1], sides[0]), depth=(sides[3], sides[2]), shift=shift, frames=frames)


def _frames(path: str, file: BinaryIO, begin: int, count: int, size: int) -> tuple[tuple[int, int, int], ...]:
    frames = []
    for place in range(count):
        if begin + _FRAME.size > size:
            raise UnreadableVideo(path, f"it is cut off: frame {place} of {count} is missing")
        _, _, colour, depth = _FRAME.unpack(_take(path, file, begin, _FRAME.size))
        begin += _FRAME.size
        if begin + colour + depth > size:
            raise UnreadableVideo(path, f"it is cut off in frame {place} of {count}")
        frames.append((begin, colour, depth))
        begin += colour + depth
    return tuple(frames)


def _wanted(video: VideoInfo, cuts: Sequence[Cut]) -> tuple[list[int], np.ndarray]:
    """The frames that the clips are made of, each once and in order, and which of these go where, `[N, T]`."""
    places_nt = [cut.places(_seconds(video), video.fps) for cut in cuts]
    wanted = sorted(set().union(*places_nt))
    if wanted[-1] >= len(_scan(video.path).frames):
        raise UnreadableVideo(video.path, f"it no longer has {video.frames} frames")
    return wanted, np.searchsorted(wanted, places_nt)


def _seconds(video: VideoInfo) -> list[float]:
    return [place / video.fps for place in range(video.frames)]


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UnreadableVideo(path, f"it cannot be opened: {error.strerror}") from error


def _take(path: str, file: BinaryIO, begin: int, length: int) -> bytes:
    """Bytes of the file; UnreadableVideo where it ends before."""
    try:
        file.seek(begin)
        data = file.read(length)
    except OSError as error:
        raise UnreadableVideo(path, f"it cannot be read: {error.strerror}") from error
    if len(data) < length:
        raise UnreadableVideo(path, "it is cut off")
    return data
