"""Scans of ScanNet, written here by hand."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerlock.data import ClipConfig, open_source
from layerlock.data.decode import probe, read_clips, read_depth, read_whole
from layerlock.data.decode.video import Cut, UnreadableVideo
from layerlock.errors import LayerlockError

FRAMES = 12


def write_sens(path: Path, *, frames: int = FRAMES, depth_size: tuple[int, int] = (6, 8), **header: int) -> Path:
    """Frame i has colour of grey level 20 i and depth 100 (i + 1) millimetres, but for its first pixel."""
    facts = {"version": 4, "colour": 2, "depth": 1} | header
    name = b"StructureSensor"
    parts = [struct.pack("<IQ", facts["version"], len(name)), name, np.eye(4, dtype="<f4").tobytes() * 4]
    sides = (32, 24, depth_size[1], depth_size[0])
    parts.append(struct.pack("<iiIIIIfQ", facts["colour"], facts["depth"], *sides, 1000.0, frames))
    for number in range(frames):
        picture = io.BytesIO()
        Image.new("RGB", (32, 24), (20 * number,) * 3).save(picture, "JPEG", quality=95)
        depth = np.full((6, 8), 100 * (number + 1), "<u2")
        depth[0, 0] = 0
        packed = zlib.compress(depth.tobytes())
        parts.append(np.eye(4, dtype="<f4").tobytes() + struct.pack("<QQQQ", 0, 0, picture.tell(), len(packed)))
        parts += [picture.getvalue(), packed]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts) + b"inertial data follows")
    return path


def test_colour_and_depth_of_any_frame_are_read(tmp_path: Path) -> None:
    video = probe(str(write_sens(tmp_path / "scene0000_00.sens")))
    assert (video.frames, video.width, video.height, video.fps, video.codec) == (FRAMES, 32, 24, 30.0, "sens")
    cuts = [Cut(start=2, frames=3, stride=2), Cut(start=9, frames=3, stride=1)]
    clips = read_clips(video, cuts, size=(24, 32))
    assert clips.video_nthwc.shape == (2, 3, 24, 32, 3)
    assert clips.decoded == 6
    np.testing.assert_allclose(clips.video_nthwc.mean((2, 3, 4)), [[40, 80, 120], [180, 200, 220]], atol=1.5)
    depth = read_depth(video, cuts, size=(12, 16))
    np.testing.assert_allclose(depth[:, :, 5, 5], [[0.3, 0.5, 0.7], [1.0, 1.1, 1.2]], rtol=1e-6)
    assert (depth[:, :, :2, :2] == 0).all()
    assert (depth[:, :, 2:] > 0).all()
    assert depth.dtype == np.float32
    seconds, frames = read_whole(video, size=(6, 8), most=FRAMES)
    assert (len(seconds), frames.shape) == (FRAMES, (FRAMES, 6, 8, 3))


def test_a_folder_of_scans_is_a_source_with_depth(tmp_path: Path) -> None:
    for scene in range(2):
        write_sens(tmp_path / f"scene000{scene}_00" / f"scene000{scene}_00.sens")
    source = open_source(str(tmp_path), ClipConfig(frames=4, stride=1, size=16), 0, workers=1, targets=("depth",))
    assert len(source) == 2
    (sample,) = source.samples(0)
    assert sample.targets["depth"].shape == (4, 18, 18)


@pytest.mark.parametrize("cut", [4, 60, 340, 1500, -30])
def test_a_file_that_is_cut_off_says_so(tmp_path: Path, cut: int) -> None:
    path = write_sens(tmp_path / "scan.sens")
    whole = path.read_bytes().removesuffix(b"inertial data follows")
    path.write_bytes(whole[:cut])
    with pytest.raises(UnreadableVideo, match="cut off"):
        probe(str(path))
    with pytest.raises(LayerlockError, match="cut off"):
        open_source(str(tmp_path), ClipConfig(frames=4, size=16), 0, workers=1)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 3}, "not a .sens file of version 4"),
        ({"colour": 0}, "compression"),
        ({"depth": 2}, "compression"),
        ({"depth_size": (6, 9)}, "depth of frame 0 is not 9x6 pixels"),
        ({"depth_size": (60_000, 60_000)}, "header is damaged"),
        ({"frames": 0}, "header is damaged"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, header: dict[str, int], message: str) -> None:
    with pytest.raises(UnreadableVideo, match=message):
        probe(str(write_sens(tmp_path / "scan.sens", **header)))


def test_damaged_depth_names_its_frame(tmp_path: Path) -> None:
    path = write_sens(tmp_path / "scan.sens")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\xff\xd9") + 4  # after the last picture
    content[at : at + 4] = b"\0\0\0\0"
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableVideo, match="the depth of frame 11"):
        probe(str(path))
