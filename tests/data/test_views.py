from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import sample_of
from video_files import number_of, write_video

from layerlock.data import ClipConfig, Source, Views, open_source
from layerlock.data.synthetic import FINGERPRINT, SyntheticSource

CLIP = ClipConfig(frames=4, stride=2, size=32, resize=1.0)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Four videos of 7, 9, 11 and 13 frames."""
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", frames=7 + 2 * number)
    return open_source(str(tmp_path), replace(CLIP, size=30), 0, workers=0)


def test_every_video_has_its_middle_clip(source: Source) -> None:
    views = Views(source)
    assert isinstance(views, Source)
    assert len(views) == 4
    for index in range(8):
        sample, expected = sample_of(views, index), source.view(index % 4)
        assert sample.index == index
        assert sample.name == expected.name == views.name(index) == views.video_name(index % 4)
        assert torch.equal(sample.video_tchw, expected.video_tchw)
        assert Path(sample.name).name == f"{index % 4}.mp4"
        assert not sample.flip


def test_middle_clip_begins_as_late_as_it_leaves_off_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=17, size=(160, 160))
    views = Views(open_source(str(tmp_path), replace(CLIP, size=160), 0, workers=0))
    assert [number_of(frame.permute(1, 2, 0).numpy()) for frame in sample_of(views, 0).video_tchw] == [5, 7, 9, 11]


def test_chosen_videos_keep_their_place(source: Source) -> None:
    views = pickle.loads(pickle.dumps(Views(source, [3, 1])))
    assert len(views) == 2
    assert [Path(sample_of(views, index).name).name for index in range(3)] == ["3.mp4", "1.mp4", "3.mp4"]
    assert [sample_of(views, index).index for index in range(3)] == [0, 1, 2]
    assert Path(sample_of(Views(views, [1]), 0).name).name == "1.mp4"


def test_a_video_that_is_gone_is_black_and_named(source: Source) -> None:
    views = Views(source, [2, 0])
    Path(views.name(0)).unlink()
    sample = sample_of(views, 0)
    assert sample.name == views.name(0)
    assert [path for path, _ in sample.skipped] == [sample.name]
    assert sample.video_tchw.shape == sample_of(views, 1).video_tchw.shape
    assert sample.video_tchw.max() == 0
    passed_over = sample_of(views, 1, 1)
    assert (passed_over.name, passed_over.skipped, passed_over.video_tchw.max()) == (views.name(1), (), 0)


def test_fingerprint_is_the_sources(source: Source) -> None:
    assert Views(source, [1]).fingerprint == source.fingerprint


def test_scenes_have_names_before_they_are_rendered() -> None:
    scenes = SyntheticSource(clip=replace(CLIP, frames=1), seed=1, videos=3)
    assert scenes.fingerprint == FINGERPRINT
    assert (
        scenes.name(5)
        == scenes.name(5, 2)
        == scenes.video_name(2)
        == sample_of(scenes, 5).name
        == sample_of(scenes, 5, 2).name
    )
    assert sample_of(Views(scenes, [2]), 0).name == "synthetic/2"
