"""Writes small real video files whose frames carry their own number, and reads the number back from pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from layerlock.data.decode.beside import depth_path

BITS = 10
BLOCK = 16
HEIGHT, WIDTH = 2 * BLOCK, BITS * BLOCK


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 `[H, W, 3]`: the bits of `number` as ten white or black columns, upper half; lower half grey."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        columns = slice(bit * width // BITS, (bit + 1) * width // BITS)
        picture[: height // 2, columns] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture_hwc: np.ndarray) -> int:
    """The number in a picture that `numbered` drew, whatever its size now."""
    height, width, _ = picture_hwc.shape
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(int(picture_hwc[height // 4, centre].mean() > 128) << bit for bit, centre in enumerate(centres))


def write_video(
    path: Path,
    *,
    frames: int = 40,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    gop: int = 12,
) -> Path:
    """Encodes `frames` numbered pictures; `times` are their presentation times in frames (default 0, 1, 2, ...)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tag_rotation(path: Path, turns: int, *, mirrored: bool = False) -> None:
    """Writes a display matrix that asks for `turns` quarter turns counter-clockwise, and then for a mirror, left to
    right, into the track header.
    """
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: the nine numbers begin 40 bytes after the type
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    across = -1 if mirrored else 1
    numbers_9 = [across * cosine << 16, -sine << 16, 0, across * sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers_9)
    path.write_bytes(content)


def write_audio_only(path: Path) -> Path:
    """An mp4 file with one second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shared(folder: str) -> Path:
    """A folder of real footage beside the repository; skips the test where there is none."""
    root = Path(os.environ.get("LAYERLOCK_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "data" / folder).is_dir():
        pytest.skip(f"no real footage here: {root / 'data' / folder} is absent (LAYERLOCK_SHARED points to its parent)")
    return root / "data" / folder


def written_depth(path: Path) -> torch.Tensor:
    """Depth of a video of the synthetic world, float32 metres `[T, H, W]`."""
    with np.load(depth_path(path)) as arrays:
        return torch.from_numpy(arrays["depth_mm"].astype(np.float32) / 1000)
