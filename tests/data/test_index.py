from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from video_files import shared, write_audio_only, write_video

from layerlock.data import ClipConfig, open_source
from layerlock.data.index import build_index, find_videos
from layerlock.errors import LayerlockError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two usable videos among everything that goes wrong."""
    root = tmp_path / "videos"
    good = write_video(root / "b" / "good.mp4", frames=3)
    shutil.copy(good, root / "A.MP4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not a video")
    (root / "folder.mp4").mkdir()
    write_audio_only(root / "sound.mp4")
    (root / "notes.txt").write_text("of no interest")
    (root / "b" / "loop").symlink_to(root)
    (root / "dangling.mp4").symlink_to(root / "nowhere.mp4")
    return root


def relative(paths: list[str], root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def test_finds_files_by_ending_and_ends_in_loops(folder: Path) -> None:
    assert relative(find_videos(folder), folder) == [
        "A.MP4",
        "b/good.mp4",
        "dangling.mp4",
        "empty.mp4",
        "sound.mp4",
        "text.mp4",
    ]


def test_follows_links_to_folders_elsewhere(tmp_path: Path) -> None:
    write_video(tmp_path / "disk" / "a.mp4", frames=1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "two").symlink_to(tmp_path / "disk")
    assert relative(find_videos(tmp_path / "data"), tmp_path / "data") == ["one/a.mp4", "two/a.mp4"]


def test_a_single_file_is_found(folder: Path) -> None:
    assert find_videos(folder / "A.MP4") == [str(folder / "A.MP4")]


@pytest.mark.parametrize("workers", [0, 2])
def test_index_keeps_the_usable_and_names_the_rest(folder: Path, workers: int) -> None:
    index = build_index(folder, workers)
    assert relative([video.path for video in index.videos], folder) == ["A.MP4", "b/good.mp4"]
    assert index.videos[0].frames == 3
    reasons = {os.path.relpath(path, folder): reason for path, reason in index.rejected}
    assert reasons.keys() == {"dangling.mp4", "empty.mp4", "sound.mp4", "text.mp4"}
    assert "No such file" in reasons["dangling.mp4"]
    assert reasons["empty.mp4"] == "it is empty"
    assert reasons["sound.mp4"] == "it has no video stream"
    assert "cannot be opened" in reasons["text.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions_are_a_rejection(folder: Path) -> None:
    (folder / "A.MP4").chmod(0)
    assert "Permission denied" in dict(build_index(folder, 0).rejected)[str(folder / "A.MP4")]


def test_missing_and_empty_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match=r"folder .*nowhere does not exist"):
        build_index(tmp_path / "nowhere", 0)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(LayerlockError, match=r"no videos in .* \.mp4"):
        build_index(tmp_path, 0)


def test_nothing_decodable_is_said_with_reasons(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.mp4").touch()
    with pytest.raises(LayerlockError) as caught:
        open_source(str(tmp_path), ClipConfig(), 0, workers=0)
    text = str(caught.value)
    assert f"none of the 7 video files in {tmp_path} can be decoded" in text
    assert text.count("it is empty") == 5
    assert "and 2 more" in text


def test_odd_files() -> None:
    index = build_index(shared("odd_files"), 2)
    assert len(index) == 17
    rejected = {Path(path).name: reason for path, reason in index.rejected}
    assert rejected.keys() == {"broken.mp4", "corrupted.mp4", "empty.flv"}
    assert "moov atom not found" in rejected["broken.mp4"]
    assert all(rejected.values())


def test_all_footage_is_usable() -> None:
    index = build_index(shared("footage"), 2)
    assert (len(index), index.rejected) == (34, ())
    assert sum(video.seconds for video in index.videos) / 60 == pytest.approx(7.8, abs=0.1)
