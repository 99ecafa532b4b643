from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import number_of, write_video

from layerlock.data import ClipConfig, Source, collate, crop_and_flip, open_source
from layerlock.data.decode import read_clip
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index, find_videos
from layerlock.errors import LayerlockError

CLIP = ClipConfig(frames=4, stride=2, size=32, resize=1.25, flip=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, landscape, portrait and square, of different lengths, one shorter than a clip."""
    root = tmp_path_factory.mktemp("videos")
    for number, (size, frames) in enumerate([((40, 100), 30), ((100, 40), 20), ((64, 64), 40), ((40, 100), 3)]):
        write_video(root / f"{number}.mp4", size=size, frames=frames)
    shutil.copy(root / "0.mp4", root / "4.mp4")
    shutil.copy(root / "0.mp4", root / "5.mp4")
    return root


def source_of(folder: Path, seed: int = 0, clip: ClipConfig = CLIP) -> FolderSource:
    return FolderSource(build_index(folder, 0), clip, seed)


def test_sample_is_as_promised(folder: Path) -> None:
    source = source_of(folder)
    assert isinstance(source, Source)
    assert len(source) == 6
    for index in range(12):
        sample = source.sample(index)
        assert sample.index == index
        assert sample.video_tchw.shape == (4, 3, 40, 40)
        assert sample.video_tchw.dtype == torch.uint8
        assert 0 <= sample.crop_y <= 8
        assert 0 <= sample.crop_x <= 8
        assert sample.label == -1
        assert sample.skipped == ()
    assert {source.sample(index).name for index in range(6)} == {video.path for video in source.index.videos}


def test_same_seed_same_clip_other_seed_other_clip(folder: Path) -> None:
    one, two = source_of(folder), source_of(folder)
    for index in (0, 7, 10**12):
        first, second = one.sample(index), two.sample(index)
        assert torch.equal(first.video_tchw, second.video_tchw)
        nothing = torch.empty(0)
        assert replace(first, video_tchw=nothing) == replace(second, video_tchw=nothing)
    names = [[source_of(folder, seed).sample(index).name for index in range(6)] for seed in range(3)]
    assert names[0] != names[1]
    assert names[1] != names[2]


def test_the_crop_is_the_one_from_the_whole_frame(tmp_path: Path) -> None:
    """Window and offset together give every crop of the resized frame: each is found again by searching for it."""
    write_video(tmp_path / "a.mp4", size=(40, 50), frames=7)
    clip = replace(CLIP, flip=False)
    source = source_of(tmp_path, clip=clip)
    video = source.index.videos[0]
    whole_thwc = read_clip(video, start=0, frames=4, stride=2, short_side=clip.margin)
    noise = np.random.default_rng(0).integers(0, 256, whole_thwc.shape, np.uint8)
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("layerlock.data.folder.read_clip", lambda *_, **__: noise)
        for index in range(1500):
            sample = source.sample(index)
            crop_hw = crop_and_flip(collate([sample], clip.size))[0, 0, 0].numpy()
            places = [(y, x) for y in range(9) for x in range(19) if noise[0, y, x, 0] == crop_hw[0, 0]]
            matches = [(y, x) for y, x in places if np.array_equal(noise[0, y : y + 32, x : x + 32, 0], crop_hw)]
            assert len(matches) == 1
            found.add(matches[0])
    assert found == {(y, x) for y in range(40 - 32 + 1) for x in range(50 - 32 + 1)}


def test_starts_cover_the_video_evenly(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=10)
    source = source_of(tmp_path, clip=ClipConfig(frames=4, stride=2, size=32, resize=1.0, flip=True))
    starts, flips = [0] * 4, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "layerlock.data.folder.read_clip", lambda *_, start, **__: np.full((4, 32, 160, 3), start, np.uint8)
        )
        for index in range(2000):
            sample = source.sample(index)
            starts[int(sample.video_tchw[0, 0, 0, 0])] += 1
            flips += sample.flip
    assert min(starts) > 430
    assert sum(starts) == 2000
    assert 900 < flips < 1100


def test_flip_can_be_turned_off(folder: Path) -> None:
    source = source_of(folder, clip=replace(CLIP, flip=False))
    assert not any(source.sample(index).flip for index in range(12))


def test_frames_are_stride_apart(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=60, size=(40, 40))
    source = source_of(tmp_path, clip=ClipConfig(frames=4, stride=5, size=40, resize=1.0))
    for index in range(10):
        numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in source.sample(index).video_tchw]
        assert numbers == [numbers[0] + 5 * step for step in range(4)]


def test_labels_are_class_folders(tmp_path: Path) -> None:
    for name in ("zebra", "ant"):
        write_video(tmp_path / name / "a.mp4", frames=2)
    source = source_of(tmp_path)
    assert source.classes == ("ant", "zebra")
    assert {(Path(s.name).parent.name, s.label) for s in map(source.sample, range(2))} == {("ant", 0), ("zebra", 1)}
    write_video(tmp_path / "loose.mp4", frames=2)
    source = source_of(tmp_path)
    assert source.classes == ()
    assert source.sample(0).label == -1


def test_a_vanished_file_is_replaced_and_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    before = [source.sample(index) for index in range(12)]
    gone = tmp_path / "copy" / "2.mp4"
    gone.unlink()
    again = source_of(folder)  # the same draws over intact files
    for index, sample in enumerate(before):
        now = source.sample(index)
        if sample.name != str(gone):
            assert torch.equal(now.video_tchw, sample.video_tchw)
            assert now.skipped == ()
        else:
            assert now.name != str(gone)
            (path, reason) = now.skipped[0]
            assert path == str(gone)
            assert "No such file" in reason
            assert torch.equal(now.video_tchw, source.sample(index).video_tchw)
        assert again.sample(index).index == index


def test_it_gives_up_when_everything_is_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(LayerlockError, match=r"^6 videos in a row could not be decoded"):
        source.sample(0)


def test_candidates_are_passed_over_and_named_without_decoding(folder: Path) -> None:
    source = source_of(folder)
    for index in (0, 5, 10**9):
        names = [source.name(index, attempt) for attempt in range(4)]
        assert len(set(names)) == 4
        assert [source.sample(index, attempt).name for attempt in range(4)] == names
    with pytest.raises(LayerlockError, match=r"^\d videos in a row"):
        source.sample(0, len(source))


def test_a_sample_of_a_later_candidate_is_that_of_files_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    expected = source.sample(3, 2)
    for attempt in range(2):
        Path(source.name(3, attempt)).unlink()
    found = source.sample(3)
    assert torch.equal(found.video_tchw, expected.video_tchw)
    assert [path for path, _ in found.skipped] == [source.name(3, 0), source.name(3, 1)]
    assert expected.skipped == ()


def test_fingerprint_is_of_the_videos_alone(folder: Path, tmp_path: Path) -> None:
    fingerprint = source_of(folder).fingerprint
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert source_of(copy, seed=7, clip=replace(CLIP, size=16)).fingerprint == fingerprint
    (copy / "empty.mp4").touch()
    assert source_of(copy).fingerprint == fingerprint
    (copy / "3.mp4").rename(copy / "3b.mp4")
    renamed = source_of(copy).fingerprint
    (copy / "3b.mp4").rename(copy / "3.mp4")
    write_video(copy / "3.mp4", size=(40, 100), frames=4)
    assert len({fingerprint, renamed, source_of(copy).fingerprint}) == 3


def test_only_the_files_asked_for_are_looked_into(folder: Path) -> None:
    paths = find_videos(folder)
    assert [video.path for video in build_index(folder, 0, paths[1::3]).videos] == paths[1::3]


def test_open_source_opens_a_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "empty.mp4").touch()
    source = open_source(str(tmp_path / "copy"), CLIP, 0, workers=0)
    assert len(source) == 6
    assert source.rejected == ((str(tmp_path / "copy" / "empty.mp4"), "it is empty"),)
