"""Vectors of videos, of clips and of tokens, after several blocks, against the encoder's own features of the clips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import GRID, MODEL, TOKENS
from torch import Tensor
from video_files import write_video

import layerlock
from layerlock.data import Sample, collate, crop_and_flip, open_source
from layerlock.data.decode import probe
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.errors import LayerlockError
from layerlock.features import consecutive, rows
from layerlock.features.clips import plain_clip
from layerlock.features.consecutive import windows
from layerlock.features.embed import embed_source
from layerlock.features.embeddings import Embeddings, Per
from layerlock.features.whitening import whitening
from layerlock.model.encoder import ClipShape, Encoder

FRAMES = {"a": 33, "b": 5, "c": 16}
"""with clips of 8 frames: 5 clips, the last two sharing 7 frames, 1 that is shorter than a clip, and 2"""


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "videos"
    for name, frames in FRAMES.items():
        times = [3 * i + i % 3 for i in range(frames)]
        write_video(place / f"{name}.mp4", frames=frames, times=times, size=(32, 32))
    (place / "bad.mp4").write_bytes(b"no video")
    return place


def embed(encoder: Encoder, folder: Path, **changes: Any) -> Embeddings:
    return layerlock.embed(encoder, folder, **{"batch": 4, "workers": 0, "whiten": False, **changes})


def clips_of(encoder: Encoder, folder: Path) -> list[list[Tensor]]:
    """Every clip of each video as the encoder is shown it, one by one, `[1, 8, 3, 24, 24]`."""
    source = open_source(str(folder), plain_clip(encoder.clip), seed=0, workers=0)
    assert isinstance(source, FolderSource)
    starts_v = [[window.start for window in windows(video, source.clip)] for video in source.index.videos]
    return [
        [crop_and_flip(collate(source.views(video, [start]), encoder.clip.size)) for start in starts]
        for video, starts in enumerate(starts_v)
    ]


@pytest.mark.parametrize("batch", [1, 3, 4, 16])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_clip_has_the_mean_feature_and_its_time(encoder: Encoder, folder: Path, batch: int, workers: int) -> None:
    found = embed(encoder, folder, per="clip", depth=[5, 2], batch=batch, workers=workers)
    assert [Path(name).stem for name in found.files] == list(FRAMES)
    assert [Path(path).name for path, _ in found.rejected] == ["bad.mp4"]
    clips = clips_of(encoder, folder)
    assert [len(own) for own in clips] == [5, 1, 2]
    wanted = [[encoder(clip, depth)[0].mean(0) for depth in (5, 2)] for own in clips for clip in own]
    np.testing.assert_allclose(found.features, np.array([torch.stack(each).numpy() for each in wanted]), atol=1e-5)
    assert found.features.dtype == np.float32
    assert found.video is not None
    assert found.begin is not None
    assert found.end is not None
    assert found.video.tolist() == [0] * 5 + [1] + [2] * 2
    times = [
        window for name in FRAMES for window in windows(probe(str(folder / f"{name}.mp4")), plain_clip(encoder.clip))
    ]
    assert found.begin.tolist() == [window.begin for window in times]
    assert found.end.tolist() == [window.end for window in times]
    assert found.begin[:3].tolist() == pytest.approx([0, 26 / 25, 49 / 25])


def test_every_token_of_the_middle_clip_stands_at_its_place(encoder: Encoder, folder: Path) -> None:
    found = embed(encoder, folder, per="token", depth=4)
    assert found.features.shape == (3, TOKENS, MODEL.width)
    assert isinstance(found.features, np.memmap)  # which is not held in memory
    source = open_source(str(folder), plain_clip(encoder.clip), seed=0, workers=0)
    for number in range(3):
        video = crop_and_flip(collate([source.view(number)], encoder.clip.size))
        (grid,) = encoder.forward_intermediates(video, [4], output_fmt="grid")
        for token, (t, h, w) in enumerate(np.ndindex(GRID)):
            np.testing.assert_allclose(found.features[number, token], grid[0, t, h, w], atol=1e-5)
    assert found.position is not None
    assert found.position.tolist() == [list(place) for place in np.ndindex(GRID)]
    both = embed(encoder, folder, per="token", depth=[1, 4])
    assert both.features.shape == (3, 2, TOKENS, MODEL.width)
    np.testing.assert_array_equal(both.features[:, 1], found.features)


def test_blocks_of_one_pass_are_those_of_their_own(encoder: Encoder, folder: Path) -> None:
    together = embed(encoder, folder, depth=(6, 0, 3))
    assert together.features.shape == (3, 3, MODEL.width)
    for place, depth in enumerate((6, 0, 3)):
        np.testing.assert_array_equal(together.features[:, place], embed(encoder, folder, depth=depth).features)


def test_clips_may_begin_at_another_distance(encoder: Encoder, folder: Path) -> None:
    found = embed(encoder, folder, per="clip", hop=0.5)
    assert found.begin is not None
    assert found.video is not None
    begins = found.begin[found.video == 0]
    np.testing.assert_allclose(begins[:-1], np.arange(len(begins) - 1) * 0.5, atol=0.16)
    assert begins[-1] == pytest.approx((3 * 25 + 25 % 3) / 25)


def test_clips_that_are_lost_are_left_out_and_named(
    encoder: Encoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed(encoder, folder, per="clip")
    views = FolderSource.views

    def damaged(self: FolderSource, video: int, starts: list[float]) -> list[Any]:
        if video == 0 and any(start > 20 for start in starts):
            (folder / "a.mp4").rename(folder / "gone")
            try:
                return views(self, video, starts)
            finally:
                (folder / "gone").rename(folder / "a.mp4")
        return views(self, video, starts)

    monkeypatch.setattr(FolderSource, "views", damaged)
    found = embed(encoder, folder, per="clip")
    assert [Path(path).name.partition(" (")[0] for path, _ in found.rejected] == [
        "bad.mp4",
        "a.mp4, clip 4",
        "a.mp4, clip 5",
    ]
    assert found.video is not None
    assert found.video.tolist() == [0] * 3 + [1] + [2] * 2
    np.testing.assert_array_equal(found.features, np.delete(whole.features, [3, 4], axis=0))


class Crashing(FolderSource):
    """The first video takes the process down that decodes it from frame 20 on."""

    def views(self, video: int, starts: Sequence[float]) -> list[Sample]:
        if video == 0 and max(starts) > 20:
            os._exit(1)
        return super().views(video, starts)


def test_clips_that_cost_a_process_are_left_out_and_named_each(encoder: Encoder, folder: Path) -> None:
    source = Crashing(build_index(folder, 0), plain_clip(encoder.clip), 0)
    found, _ = consecutive.all_windows(source, None, workers=0, progress=lambda *_: None)
    views = consecutive.ConsecutiveViews(source, found, 2)
    embedded = embed_source(encoder, views, depths=[5], without=views.fillers, batch=4, workers=1)
    assert {Path(path).name.partition(" (")[0] for path in embedded.lost} == {
        "a.mp4, clip 3",
        "a.mp4, clip 4",
        "a.mp4, clip 5",
    }
    whole = embed(encoder, folder, per="clip", depth=5).features
    np.testing.assert_allclose(embedded.features[:, 0], whole[[0, 1, 5, 6, 7]], atol=1e-5)


@pytest.mark.parametrize("per", ["video", "clip"])
def test_several_blocks_are_whitened_each_by_its_own_map(
    encoder: Encoder, folder: Path, tmp_path: Path, per: Per
) -> None:
    plain = embed(encoder, folder, per=per, depth=[2, 5]).features
    found = embed(encoder, folder, per=per, depth=[2, 5], whiten=True, out=tmp_path / "both.npz")
    for place in range(2):
        x = torch.from_numpy(plain[:, place].copy())
        np.testing.assert_allclose(found.features[:, place], whitening(x).apply(x), atol=1e-4)
    again = embed(encoder, folder, per=per, depth=[2, 5], whiten=tmp_path / "both.npz")
    np.testing.assert_allclose(again.features, found.features, atol=1e-5)
    for depth in (2, [5, 2], [2]):
        with pytest.raises(LayerlockError, match=r"another depth: \[2, 5\], here"):
            embed(encoder, folder, per=per, depth=depth, whiten=tmp_path / "both.npz")


def test_clips_are_whitened_as_videos_before_were(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    embed(encoder, folder, whiten=True, out=tmp_path / "videos.npz")
    found = embed(encoder, folder, per="clip", whiten=tmp_path / "videos.npz")
    plain = torch.from_numpy(embed(encoder, folder, per="clip").features)
    assert found.whitening is not None
    np.testing.assert_allclose(found.features, found.whitening.apply(plain), atol=1e-4)
    assert found.whitening.mean_d.numpy() == pytest.approx(embed(encoder, folder).features.mean(0), abs=1e-5)


@pytest.mark.parametrize("whiten", [True, "before.npz"])
def test_tokens_are_not_whitened(encoder: Encoder, folder: Path, whiten: bool | str) -> None:
    with pytest.raises(LayerlockError, match="whiten: tokens are not whitened"):
        embed(encoder, folder, per="token", whiten=whiten)
    assert embed(encoder, folder, per="token", whiten=None).whitening is None


@pytest.mark.parametrize("per", ["video", "clip", "token"])
def test_files_hold_what_is_returned(encoder: Encoder, folder: Path, tmp_path: Path, per: Per) -> None:
    out = tmp_path / "made" / "here"
    found = embed(encoder, folder, per=per, depth=[2, 5], whiten=None, out=out / "one.npz")
    embed(encoder, folder, per=per, depth=[2, 5], whiten=None, out=out / "two.npy")
    assert sorted(path.name for path in out.iterdir()) == ["one.npz", "two.npy", "two.npz"]
    mapped = np.load(out / "two.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, found.features)
    with np.load(out / "one.npz") as one, np.load(out / "two.npz") as two:
        assert set(one) == {"features", *two}
        assert tuple(one["files"]) == found.files
        assert one["depth"].tolist() == [2, 5]
        extra = {"video": {"mean", "map"}, "clip": {"video", "begin", "end", "mean", "map"}, "token": {"position"}}[per]
        assert set(two) == {"files", "encoder", "depth", *extra}
        for name in ("features", "video", "begin", "end", "position"):
            if name in one:
                np.testing.assert_array_equal(one[name], getattr(found, name))
        for name in set(two):
            np.testing.assert_array_equal(one[name], two[name])


def test_rows_that_the_disk_has_no_room_for_are_refused(
    encoder: Encoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "SPARE", 1e-15)
    with pytest.raises(LayerlockError, match=r"3 rows of 3,456 bytes, and their copy in the file, take 0.0 GB"):
        embed(encoder, folder, per="token", depth=4, out=tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_where_nothing_can_be_written_that_is_said(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LayerlockError, match="file: cannot be written"):
        embed(encoder, folder, out=tmp_path / "file" / "x.npz")
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(LayerlockError, match=r"x\.npz: cannot be written"):
        embed(encoder, folder, out=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop": 1.0}, "hop: there is one clip a video"),
        ({"per": "clip", "hop": 0.0}, "hop: 0.0 is not"),
        ({"per": "clip", "hop": float("nan")}, "hop: nan is not"),
        ({"depth": 7}, r"depth: the encoder has blocks 0 to 6, not \[7\]"),
        ({"depth": [2, -1]}, r"not \[2, -1\]"),
        ({"depth": []}, r"not \[\]"),
    ],
)
def test_options_that_cannot_be_are_named(
    encoder: Encoder, folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayerlockError, match=message):
        embed(encoder, folder, **changes)


def test_videos_that_all_go_before_their_times_are_read_are_an_error(
    encoder: Encoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(video: VideoInfo) -> list[float]:
        raise UnreadableVideo(video.path, "it is gone")

    monkeypatch.setattr(consecutive, "frame_times", gone)
    with pytest.raises(LayerlockError, match=r"none of 3 videos could be decoded; the first: .*a\.mp4', 'it is gone'"):
        embed(encoder, folder, per="clip")
