"""From a decoded frame to upright RGB pixels of the wanted size."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from layerlock.data.decode.video import UnreadableVideo

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

_MATRIX = struct.Struct("=9i")


class Orientation(NamedTuple):
    """What makes a decoded picture upright: quarter turns counter-clockwise (0 to 3), then a mirror, left to right."""

    turns: int
    mirrored: bool


def orientation(frame: VideoFrame) -> Orientation:
    """What the frame's display matrix says, to the nearest quarter turn.

    The matrix maps a decoded pixel (x, y), y downwards, to (a x + c y, b x + d y) on the screen.
    """
    try:
        data = bytes(cast("Buffer", frame.side_data.get("DISPLAYMATRIX", b"")))
    except ValueError:  # PyAV cannot list data of kinds that it does not know
        return Orientation(round(frame.rotation / 90) % 4, False)
    if len(data) != _MATRIX.size:
        return Orientation(0, False)
    a, b, _, c, d, *_ = _MATRIX.unpack(data)
    if a * d - b * c < 0:  # a reflection: mirrored back on the screen, x becomes -x, a turn is left
        return Orientation(_turns(-a, b, -c, d), True)
    return Orientation(_turns(a, b, c, d), False)


def _turns(a: int, b: int, c: int, d: int) -> int:
    """Quarter turns counter-clockwise nearest to the rotation that is a, b, c, d."""
    cosine, sine = a + d, c - b  # y points downwards
    if abs(cosine) >= abs(sine):
        return 0 if cosine >= 0 else 2
    return 1 if sine > 0 else 3


def upright(pixels: np.ndarray, turns: int, mirrored: bool, *, axes: tuple[int, int]) -> np.ndarray:
    """A view of decoded pictures, their height and width at `axes`, as they are to be seen."""
    turned = np.rot90(pixels, turns, axes=axes)
    return np.flip(turned, axes[1]) if mirrored else turned


def scaled(path: str, frame: VideoFrame, scaler: VideoReformatter, **how: Any) -> VideoFrame:
    """A frame of the video `path` as `VideoReformatter.reformat` makes it. Raises UnreadableVideo for one that it does
    not take: damage can ask for colours that there are not.
    """
    import av

    try:
        return scaler.reformat(frame, threads=1, **how)
    except (av.FFmpegError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise UnreadableVideo(path, f"it is damaged: a picture of it cannot be converted ({told})") from error


def convert(path: str, frame: VideoFrame, scaler: VideoReformatter, out_hwc: np.ndarray) -> None:
    """Writes a frame of the video `path` as full-range RGB, resized to `out_hwc`. Raises UnreadableVideo."""
    height, width, _ = out_hwc.shape
    how = {"format": "rgb24", "dst_color_range": "JPEG", "interpolation": "BILINEAR"}
    picture = scaled(path, frame, scaler, width=width, height=height, **how)
    plane = picture.planes[0]
    row_hs = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    out_hwc[:] = row_hs[:, : width * 3].reshape(height, width, 3)
