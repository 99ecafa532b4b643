from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import sample_of
from video_files import number_of, tag_rotation, write_video

from layerlock.data import ClipConfig, Source, Views, batches, collate, crop_and_flip, open_source
from layerlock.data.decode import read_clips
from layerlock.data.decode.video import Clips
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
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


def source_of(folder: Path, seed: int = 0, clip: ClipConfig = CLIP, targets: tuple[str, ...] = ()) -> FolderSource:
    return FolderSource(build_index(folder, 0), clip, seed, targets=targets)


def test_sample_is_as_promised(folder: Path) -> None:
    source = source_of(folder)
    assert isinstance(source, Source)
    assert len(source) == 6
    for index in range(12):
        sample = sample_of(source, index)
        assert sample.index == index
        assert sample.video_tchw.shape == (4, 3, 40, 40)
        assert sample.video_tchw.dtype == torch.uint8
        assert 0 <= sample.crop[0] <= 8
        assert 0 <= sample.crop[1] <= 8
        assert sample.targets == {}
        assert sample.skipped == ()
    assert {sample_of(source, index).name for index in range(6)} == {video.path for video in source.index.videos}


def test_same_seed_same_clip_other_seed_other_clip(folder: Path) -> None:
    one, two = source_of(folder), source_of(folder)
    for index in (0, 7, 10**12):
        first, second = sample_of(one, index), sample_of(two, index)
        assert torch.equal(first.video_tchw, second.video_tchw)
        nothing = torch.empty(0)
        assert replace(first, video_tchw=nothing) == replace(second, video_tchw=nothing)
    names = [[sample_of(source_of(folder, seed), index).name for index in range(6)] for seed in range(3)]
    assert names[0] != names[1]
    assert names[1] != names[2]


def test_the_crop_is_the_one_from_the_whole_frame(tmp_path: Path) -> None:
    """Window and offset together give every crop of the resized frame: each is found again by searching for it."""
    write_video(tmp_path / "a.mp4", size=(40, 50), frames=7)
    clip = replace(CLIP, flip=False)
    source = source_of(tmp_path, clip=clip)
    video = source.index.videos[0]
    whole_thwc = read_clips(video, [clip.cut(0)], size=video.resized(clip.resize_side)).video_nthwc[0]
    noise = np.random.default_rng(0).integers(0, 256, whole_thwc.shape, np.uint8)
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("layerlock.data.folder.read_clips", lambda *_, **__: Clips(video_nthwc=noise[None], decoded=0))
        for index in range(1500):
            sample = sample_of(source, index)
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
            "layerlock.data.folder.read_clips",
            lambda _, cuts, **__: Clips(video_nthwc=np.full((1, 4, 32, 160, 3), cuts[0].start, np.uint8), decoded=0),
        )
        for index in range(2000):
            sample = sample_of(source, index)
            starts[int(sample.video_tchw[0, 0, 0, 0])] += 1
            flips += sample.flip
    assert min(starts) > 430
    assert sum(starts) == 2000
    assert 900 < flips < 1100


def test_flip_can_be_turned_off(folder: Path) -> None:
    source = source_of(folder, clip=replace(CLIP, flip=False))
    assert not any(sample_of(source, index).flip for index in range(12))


def test_frames_are_stride_apart(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=60, size=(40, 40))
    source = source_of(tmp_path, clip=ClipConfig(frames=4, stride=5, size=40, resize=1.0))
    for index in range(10):
        numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in sample_of(source, index).video_tchw]
        assert numbers == [numbers[0] + 5 * step for step in range(4)]


def test_turned_videos_are_upright(tmp_path: Path) -> None:
    upright, turned = write_video(tmp_path / "upright.mp4"), write_video(tmp_path / "turned.mp4")
    tag_rotation(turned, 2)
    source = source_of(tmp_path)
    views = {Path(sample.name).name: sample.video_tchw for sample in map(source.view, range(2))}
    assert torch.equal(views[turned.name], views[upright.name].flip(2, 3))


def test_clips_of_one_decode_come_from_one_stretch_of_one_video(folder: Path) -> None:
    clip = replace(CLIP, per_decode=3)
    source = source_of(folder, clip=clip)
    epoch = [source.samples(group) for group in range(len(source))]
    assert sorted(group[0].name for group in epoch) == [video.path for video in source.index.videos]
    assert [sample.index for group in epoch for sample in group] == list(range(3 * len(source)))
    for group in epoch:
        assert len({sample.name for sample in group}) == 1
        assert len({sample.crop for sample in group}) > 1
    assert source.name(7) == epoch[2][1].name


def test_starts_of_one_decode_cover_a_stretch(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=100)
    clip = ClipConfig(frames=4, stride=2, size=32, per_decode=4)
    source = source_of(tmp_path, clip=clip)
    every = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "layerlock.data.folder.read_clips",
            lambda _, cuts, **__: Clips(
                video_nthwc=np.array([cut.start for cut in cuts], np.uint8)[:, None, None, None, None]
                .repeat(4, 1)
                .repeat(37, 2)
                .repeat(185, 3)
                .repeat(3, 4),
                decoded=0,
            ),
        )
        for group in range(400):
            starts = [int(sample.video_tchw[0, 0, 0, 0]) for sample in source.samples(group)]
            assert max(starts) - min(starts) <= 3 * 7
            every += starts
    assert (min(every), max(every)) == (0, 100 - 7)


@pytest.mark.parametrize("flip", [False, True])
def test_a_random_size_crop_sees_the_whole_picture(folder: Path, flip: bool) -> None:
    clip = replace(CLIP, area=(0.3, 1.0), flip=flip)
    source = source_of(folder, clip=clip)
    crops = [sample_of(source, index).crop for index in range(40)]
    assert sample_of(source, 0).video_tchw.shape == (4, 3, clip.resize_side, clip.resize_side)
    for top, left, height, width in crops:
        assert 0 <= top <= top + height <= clip.resize_side + 1e-4
        assert 0 <= left <= left + width <= clip.resize_side + 1e-4
    assert len(set(crops)) == 40


def test_labels_are_class_folders(tmp_path: Path) -> None:
    for name in ("zebra", "ant"):
        write_video(tmp_path / name / "a.mp4", frames=2)
    source = source_of(tmp_path, targets=("label",))
    assert source.index.classes == ("ant", "zebra")
    samples = [sample_of(source, index) for index in range(2)]
    assert {(Path(s.name).parent.name, s.targets["label"].item()) for s in samples} == {("ant", 0), ("zebra", 1)}
    write_video(tmp_path / "loose.mp4", frames=2)
    with pytest.raises(LayerlockError, match=r"\(folder\): there is no target label; there is: depth"):
        source_of(tmp_path, targets=("label",))


def test_columns_of_a_list_are_targets_of_its_clips(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / name, frames=4)
    rows = "file_name,speed,room,note\na.mp4,0.5,hall,x\nb.mp4,,attic,y\nc.mp4,-2,,z\n"
    (tmp_path / "list.csv").write_text(rows)
    source = open_source(
        str(tmp_path / "list.csv"), replace(CLIP, per_decode=2), 0, workers=0, targets=("speed", "room")
    )
    assert source.targets == {"speed": "float", "room": "class"}
    expected = {"a.mp4": (0.5, 1), "b.mp4": (math.nan, 0), "c.mp4": (-2.0, -1)}
    for sample in (sample for group in range(3) for sample in source.samples(group)):
        found = (sample.targets["speed"].item(), sample.targets["room"].item())
        assert repr(found) == repr(expected[Path(sample.name).name])
    views = Views(source)
    (tmp_path / "a.mp4").unlink()
    (batch,) = batches(views, batch=3, start=0, stop=1, workers=0)
    assert repr(batch.targets["speed"].tolist()) == "[nan, nan, -2.0]"
    assert (batch.targets["room"].tolist(), batch.targets["room"].dtype) == ([-1, 0, -1], torch.int64)


def test_fingerprints_tell_targets_from_videos(tmp_path: Path) -> None:
    def opened(speed: float, targets: tuple[str, ...]) -> FolderSource:
        (tmp_path / "list.csv").write_text(f"file_name,speed:float,label\na.mp4,{speed},3\n")
        return source_of(tmp_path / "list.csv", targets=targets)

    write_video(tmp_path / "a.mp4", frames=4)
    plain, faster = opened(1, ("speed",)), opened(2, ("speed",))
    assert plain.fingerprint == faster.fingerprint
    assert plain.target_fingerprint != faster.target_fingerprint
    assert opened(1, ("label",)).target_fingerprint == opened(2, ("label",)).target_fingerprint
    before = opened(1, ("depth",)).target_fingerprint
    (tmp_path.parent / "depth" / tmp_path.name).mkdir(parents=True)
    (tmp_path.parent / "depth" / tmp_path.name / "a.npz").write_bytes(b"new")
    assert opened(1, ("depth",)).target_fingerprint != before


def test_a_vanished_file_is_replaced_and_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    before = [sample_of(source, index) for index in range(12)]
    gone = tmp_path / "copy" / "2.mp4"
    gone.unlink()
    again = source_of(folder)  # the same draws over intact files
    for index, sample in enumerate(before):
        now = sample_of(source, index)
        if sample.name != str(gone):
            assert torch.equal(now.video_tchw, sample.video_tchw)
            assert now.skipped == ()
        else:
            assert now.name != str(gone)
            (path, reason) = now.skipped[0]
            assert path == str(gone)
            assert "No such file" in reason
            assert torch.equal(now.video_tchw, sample_of(source, index).video_tchw)
        assert sample_of(again, index).index == index


def test_it_gives_up_when_everything_is_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(LayerlockError, match=r"^6 videos in a row could not be used"):
        sample_of(source, 0)


def test_candidates_are_passed_over_and_named_without_decoding(folder: Path) -> None:
    source = source_of(folder)
    for index in (0, 5, 10**9):
        names = [source.name(index, attempt) for attempt in range(4)]
        assert len(set(names)) == 4
        assert [sample_of(source, index, attempt).name for attempt in range(4)] == names
    with pytest.raises(LayerlockError, match=r"^\d videos in a row"):
        sample_of(source, 0, len(source))


def test_a_sample_of_a_later_candidate_is_that_of_files_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    source = source_of(tmp_path / "copy")
    expected = sample_of(source, 3, 2)
    for attempt in range(2):
        Path(source.name(3, attempt)).unlink()
    found = sample_of(source, 3)
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


def test_open_source_opens_a_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "empty.mp4").touch()
    source = open_source(str(tmp_path / "copy"), CLIP, 0, workers=0)
    assert len(source) == 6
    assert source.rejected == ((str(tmp_path / "copy" / "empty.mp4"), "it is empty"),)
