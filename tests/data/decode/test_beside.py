"""Depth in files beside videos, as the synthetic world writes it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from video_files import written_depth

from layerlock.data import ClipConfig, open_source
from layerlock.data.decode import probe, read_depth
from layerlock.data.decode.beside import depth_path
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo
from layerlock.data.synth import SynthConfig, write_videos


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth")
    return write_videos(out, SynthConfig(videos=2, size=16, frames=10), workers=1)[0]


def test_the_depth_of_a_clip_is_that_of_its_frames(written: Path) -> None:
    video, whole = probe(str(written)), written_depth(written).numpy()
    found = read_depth(video, [Cut(start=1, frames=3, stride=2), Cut(start=0, frames=3, stride=1)], size=(16, 16))
    np.testing.assert_array_equal(found, np.stack([whole[[1, 3, 5]], whole[[0, 1, 2]]]))
    larger = read_depth(video, [Cut(start=0, frames=1, stride=1)], size=(32, 32))[0, 0]
    np.testing.assert_array_equal(larger, whole[0].repeat(2, 0).repeat(2, 1))


def test_a_source_gives_it_with_its_clips(written: Path) -> None:
    clip = ClipConfig(frames=4, stride=2, size=16, resize=1.0)
    source = open_source(str(written.parent.parent), clip, 0, workers=1, targets=("depth",))
    whole = written_depth(Path(source.video_name(0)))
    view = source.view(0)
    assert view.targets["depth"].equal(whole[1:8:2])


def written_as(save: Callable[..., None], *given: np.ndarray, **named: np.ndarray) -> bytes:
    """The bytes that numpy writes."""
    file = io.BytesIO()
    save(file, *given, **named)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it has no depth: there is no"),
        (b"no archive", "is damaged"),
        (np.zeros((10, 4, 4), np.float32), "is float32 [10, 4, 4]; wanted uint16 [10, H, W]"),
        (np.zeros((9, 4, 4), np.uint16), "is uint16 [9, 4, 4]; wanted uint16 [10, H, W]"),
        (np.zeros((10, 0, 4), np.uint16), "is uint16 [10, 0, 4]; wanted uint16 [10, H, W]"),
        (written_as(np.savez, depth_mm=np.zeros((10, 4, 4), np.uint16))[:200], "is damaged"),
        (written_as(np.save, np.zeros((10, 4, 4), np.uint16)), "is damaged"),
    ],
    ids=["missing", "damaged", "another type", "fewer frames", "no pixels", "cut off", "a bare array"],
)
def test_depth_that_does_not_belong_to_the_video_is_refused(
    tmp_path: Path, written: Path, content: np.ndarray | bytes | None, message: str
) -> None:
    place = tmp_path / "class" / "clip.mp4"
    file = depth_path(place)
    file.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.savez(file, depth_mm=content)
    video: VideoInfo = replace(probe(str(written)), path=str(place))
    with pytest.raises(UnreadableVideo, match=re.escape(message)):
        read_depth(video, [Cut(start=0, frames=2, stride=1)], size=(8, 8))
