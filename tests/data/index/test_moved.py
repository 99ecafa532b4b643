"""Data that were moved or copied since a run began, and data that are others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layerlock.data import ClipConfig, open_source, save_source
from layerlock.data.folder import FolderSource
from layerlock.data.index import moved
from layerlock.data.synth import SynthConfig, write_videos
from layerlock.errors import LayerlockError

CLIP = ClipConfig(frames=4, stride=1, size=16, resize=1.0)


def opened(data: Path | str, root: Path | None = None, saved: Path | None = None) -> FolderSource:
    source = open_source(str(data), CLIP, 0, root=root and str(root), workers=0, saved=saved)
    assert isinstance(source, FolderSource)
    return source


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two worlds of five videos with the same names."""
    folder = tmp_path_factory.mktemp("worlds")
    for name, seed in (("world", 0), ("other", 1)):
        write_videos(folder / f"{name} made", SynthConfig(videos=5, seed=seed, size=16, frames=8), workers=0)
        (folder / name).mkdir()
        for number, path in enumerate(sorted((folder / f"{name} made").rglob("*.mp4"))):
            shutil.copy(path, folder / name / f"{number}.mp4")
        (folder / name / "bad.mp4").write_text("no video")
    return folder


@pytest.fixture
def data(worlds: Path, tmp_path: Path) -> Path:
    shutil.copytree(worlds / "world", tmp_path / "data")
    (tmp_path / "list.txt").write_text("".join(f"data/{n}.mp4\n" for n in (3, 1, 4)))
    (tmp_path / "absolute.txt").write_text("".join(f"{tmp_path}/data/{n}.mp4\n" for n in (3, 1, 4)))
    return tmp_path / "data"


Move = Callable[[Path, Path], tuple[Path | str, Path | None]]
"""from where the data are and a free place to what is named when the run goes on, and its root"""


def move_folder(old: Path, new: Path) -> tuple[Path, None]:
    old.rename(new)
    return new, None


def copy_folder(old: Path, new: Path) -> tuple[Path, None]:
    shutil.copytree(old, new, copy_function=shutil.copyfile)
    for path in new.iterdir():
        os.utime(path, (1.0, 1.0))
    return new, None


def link(old: Path, new: Path) -> tuple[Path, None]:
    new.symlink_to(old)
    return new, None


def relative(old: Path, new: Path) -> tuple[str, None]:
    return os.path.relpath(old), None


def list_with_its_videos(old: Path, new: Path) -> tuple[Path, None]:
    new.mkdir()
    old.rename(new / "data")
    return Path(shutil.move(old.parent / "list.txt", new)), None


def list_alone(old: Path, new: Path) -> tuple[Path, Path]:
    new.mkdir()
    return Path(shutil.move(old.parent / "list.txt", new)), old.parent


def list_and_videos_apart(old: Path, new: Path) -> tuple[Path, Path]:
    new.mkdir()
    old.rename(new / "data")
    return old.parent / "list.txt", new


def absolute_list_alone(old: Path, new: Path) -> tuple[Path, None]:
    new.mkdir()
    return Path(shutil.move(old.parent / "absolute.txt", new)), None


MOVES: dict[str, tuple[str, Move]] = {
    "a folder moved": ("data", move_folder),
    "a folder copied": ("data", copy_folder),
    "a link to it": ("data", link),
    "its relative path": ("data", relative),
    "a list moved with its videos": ("list.txt", list_with_its_videos),
    "a list moved alone": ("list.txt", list_alone),
    "a list whose videos were moved": ("list.txt", list_and_videos_apart),
    "a list of absolute paths moved": ("absolute.txt", absolute_list_alone),
}


@pytest.mark.parametrize("name", MOVES)
def test_data_that_were_moved_are_the_same_data(data: Path, tmp_path: Path, name: str) -> None:
    began, move = MOVES[name]
    before = opened(tmp_path / began)
    save_source(before, str(tmp_path / began), tmp_path / "index.json")
    now, root = move(data, tmp_path / "new")
    again = opened(now, root, tmp_path / "index.json")
    assert again.fingerprint == before.fingerprint
    assert [os.path.basename(v.path) for v in again.index.videos] == [
        os.path.basename(v.path) for v in before.index.videos
    ]
    assert all(os.path.exists(video.path) for video in again.index.videos)
    assert [os.path.basename(path) for path, _ in again.rejected] == [
        os.path.basename(path) for path, _ in before.rejected
    ]
    assert [sample.video_tchw.sum() for n in range(5) for sample in again.samples(n)]
    save_source(again, str(now), tmp_path / "index.json", root and str(root))
    assert opened(now, root, tmp_path / "index.json").fingerprint == before.fingerprint, "the new place is noted"


def other_world(old: Path, new: Path, worlds: Path) -> str:
    shutil.copytree(worlds / "other", new)
    return "bytes; this run was trained on|on other contents of it"


def one_is_missing(old: Path, new: Path, worlds: Path) -> str:
    shutil.copytree(old, new)
    (new / "2.mp4").unlink()
    return "4 videos; this run was trained on 5"


def one_more(old: Path, new: Path, worlds: Path) -> str:
    shutil.copytree(old, new)
    shutil.copy(new / "2.mp4", new / "5.mp4")
    return "6 videos; this run was trained on 5"


def renamed(old: Path, new: Path, worlds: Path) -> str:
    shutil.copytree(old, new)
    (new / "2.mp4").rename(new / "2b.mp4")
    return r"2b\.mp4 where this run was trained on 2\.mp4"


def other_contents(old: Path, new: Path, worlds: Path) -> str:
    shutil.copytree(old, new)
    whole = (new / "2.mp4").read_bytes()
    (new / "2.mp4").write_bytes(whole[:-9] + bytes(byte ^ 1 for byte in whole[-9:]))
    return r"2\.mp4: this run was trained on other contents"


@pytest.mark.parametrize("change", [other_world, one_is_missing, one_more, renamed, other_contents])
def test_other_data_are_refused_with_the_first_difference(
    data: Path, tmp_path: Path, worlds: Path, change: Callable[[Path, Path, Path], str]
) -> None:
    save_source(opened(data), str(data), tmp_path / "index.json")
    wanted = change(data, tmp_path / "new", worlds)
    with pytest.raises(LayerlockError, match=f"({wanted}).*resume on the data that the run was trained on"):
        opened(tmp_path / "new", saved=tmp_path / "index.json")


def test_another_list_beside_the_first_is_other_data(data: Path, tmp_path: Path) -> None:
    save_source(opened(tmp_path / "list.txt"), str(tmp_path / "list.txt"), tmp_path / "index.json")
    for numbers in ((3, 1), (1, 3, 4), (3, 1, 2)):
        (tmp_path / "second.txt").write_text("".join(f"data/{n}.mp4\n" for n in numbers))
        with pytest.raises(LayerlockError, match="this run was trained on"):
            opened(tmp_path / "second.txt", saved=tmp_path / "index.json")


def test_data_that_are_gone_come_with_what_to_do(data: Path, tmp_path: Path) -> None:
    save_source(opened(data), str(data), tmp_path / "index.json")
    data.rename(tmp_path / "new")
    with pytest.raises(LayerlockError, match=r"give their new place with --data"):
        opened(data, saved=tmp_path / "index.json")


def test_of_large_files_the_first_the_middle_and_the_last_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved, "WHOLE", 100)
    monkeypatch.setattr(moved, "PIECE", 40)
    path, text = tmp_path / "a", bytes(range(200))
    path.write_bytes(text)
    whole = moved._digest(str(path))
    for place, noticed in ((0, True), (100, True), (199, True), (60, False)):
        path.write_bytes(text[:place] + b"\xff" + text[place + 1 :])
        assert (moved._digest(str(path)) != whole) == noticed


def test_of_a_folder_of_pictures_the_first_counts(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_text(name)
    before = moved._digest(str(tmp_path))
    (tmp_path / "a.png").write_text("c.png")
    assert moved._digest(str(tmp_path)) != before
    assert moved._digest(str(tmp_path / "none")) == ""
