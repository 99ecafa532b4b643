from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from video_files import shared, write_audio_only, write_video

import layerlock
from layerlock.data import ClipConfig, open_source, pool
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.data.index import Index, build, build_index
from layerlock.data.index import cache as index_cache
from layerlock.data.index.cache import IndexCache, Stamp, stamp_of
from layerlock.data.index.describe import describe
from layerlock.data.index.layouts import list_videos
from layerlock.data.index.listing import NothingUsable
from layerlock.data.pool import Failure
from layerlock.data.targets import Column
from layerlock.errors import LayerlockError
from layerlock.progress import INDEXING, Progress

INFO = VideoInfo(path="/a.mp4", frames=3, fps=25.0, width=4, height=2, seconds=0.12, codec="h264", rotation=1, bytes=9)
STAMP = Stamp(1, 2, 3, False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two usable videos among everything that goes wrong."""
    root = tmp_path / "videos"
    good = write_video(root / "b" / "good.mp4", frames=3)
    shutil.copy(good, root / "A.MP4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not a video")
    write_audio_only(root / "sound.mp4")
    (root / "dangling.mp4").symlink_to(root / "nowhere.mp4")
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("LAYERLOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are looked into, without processes."""
    names: list[str] = []
    probe = build.probe

    def note(path: str) -> VideoInfo:
        names.append(os.path.basename(path))
        return probe(path)

    monkeypatch.setattr(build, "probe", note)
    return names


def known(path: str, stamp: Stamp = STAMP, data: str = "/data") -> VideoInfo | str | None:
    """What the cache says."""
    with closing(IndexCache(data)) as cache:
        return cache.get(path, stamp)


def keep(data: str, path: str, found: VideoInfo | str) -> None:
    with closing(IndexCache(data)) as cache:
        cache.add(path, STAMP, found)


def write_picture(path: Path, width: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 16)).save(path)


def entries(cache: Path) -> list[dict[str, Any]]:
    """What is in the only file of a cache folder."""
    (file,) = (cache / "index").iterdir()
    return [json.loads(line) for line in file.read_text().splitlines() if line]


# what an index holds


@pytest.mark.parametrize("workers", [0, 2])
def test_index_keeps_the_usable_and_names_the_rest(folder: Path, workers: int) -> None:
    index = build_index(folder, workers, cache=False)
    assert [os.path.relpath(video.path, folder) for video in index.videos] == ["A.MP4", "b/good.mp4"]
    assert index.videos[0].frames == 3
    assert (index.layout, index.labels, index.classes, index.root) == ("folder", (-1, -1), (), str(folder))
    reasons = {os.path.relpath(path, folder): reason for path, reason in index.rejected}
    assert reasons == {
        "dangling.mp4": "it cannot be opened: no such file",
        "empty.mp4": "it is empty",
        "sound.mp4": "it has no video stream",
        "text.mp4": reasons["text.mp4"],
    }
    assert "cannot be opened" in reasons["text.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions_are_a_rejection(folder: Path) -> None:
    (folder / "A.MP4").chmod(0)
    assert "Permission denied" in dict(build_index(folder, 0).rejected)[str(folder / "A.MP4")]


def test_labels_are_those_of_the_usable_videos(folder: Path) -> None:
    (folder / "list.csv").write_text("empty.mp4 1\nb/good.mp4 4\ngone.mp4 3\nA.MP4 0\nnul\0.mp4 2\n")
    index = build_index(folder / "list.csv", 0)
    assert [os.path.relpath(video.path, folder) for video in index.videos] == ["b/good.mp4", "A.MP4"]
    assert (index.labels, index.classes) == ((4, 0), ("0", "1", "2", "3", "4"))
    assert [(os.path.relpath(path, folder), reason) for path, reason in index.rejected] == [
        ("empty.mp4", "it is empty"),
        ("gone.mp4", "no such file; listed in list.csv, line 3"),
        ("nul\0.mp4", "it cannot be opened: embedded null byte"),
    ]


def test_only_the_chosen_are_looked_into(folder: Path, probed: list[str]) -> None:
    listing = dataclasses.replace(list_videos(folder), rejected=(("closed", "the folder cannot be searched"),))
    assert len(build_index(listing, 0, cache=False).rejected) == 5
    probed.clear()
    index = build_index(listing, 0, only=[0, 1])
    assert probed == ["A.MP4", "good.mp4"]
    assert [os.path.relpath(video.path, folder) for video in index.videos] == ["A.MP4", "b/good.mp4"]
    assert index.rejected == ()


def test_nothing_usable_is_said_with_reasons(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}\n.mp4").touch()
    with pytest.raises(NothingUsable) as caught:
        open_source(str(tmp_path), ClipConfig(), 0, workers=0)
    text = str(caught.value)
    assert text.startswith(f"none of the 7 videos of {tmp_path} can be used:")
    assert text.count(r"\n.mp4: it is empty") == 5
    assert text.endswith("and 2 more")
    (tmp_path / "list.txt").write_text("a.mp4\n")
    with pytest.raises(LayerlockError, match=r"workers: -1 is negative"):
        build_index(tmp_path, -1)
    with pytest.raises(LayerlockError, match=r"the only video of .*list.txt cannot be used:\n.*list.txt, line 1"):
        build_index(tmp_path / "list.txt", 0)


def test_odd_files() -> None:
    index = build_index(shared("odd_files"), 2, cache=False)
    assert len(index) == 18
    rejected = {Path(path).name: reason for path, reason in index.rejected}
    assert rejected.keys() == {"broken.mp4", "empty.flv"}
    assert "moov atom not found" in rejected["broken.mp4"]
    assert all(rejected.values())


def test_all_footage_is_usable() -> None:
    index = build_index(shared("footage"), 2)
    assert (len(index), index.rejected) == (34, ())
    assert sum(video.seconds for video in index.videos) / 60 == pytest.approx(7.8, abs=0.1)


def test_colour_and_depth_pairs_are_one_video() -> None:
    (video,) = build_index(shared("kitchen_rgbd"), 0).videos
    assert (video.frames, video.width, video.height) == (400, 640, 480)


# the cache


def test_what_is_known_is_not_looked_into_again_and_starts_no_process(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_index(folder, 2)

    def start(*_: object) -> None:
        raise AssertionError("a process is started")

    monkeypatch.setattr(pool, "_Hand", start)
    assert build_index(folder, 2) == first
    with pytest.raises(AssertionError, match="a process"):
        build_index(folder, 2, cache=False)
    assert len(entries(cache)) == 5


@pytest.mark.usefixtures("cache")
def test_a_changed_file_is_looked_into_again(folder: Path, probed: list[str]) -> None:
    build_index(folder, 0)
    before = (folder / "A.MP4").stat()
    with (folder / "A.MP4").open("r+b") as file:
        file.write(b"something")
    os.utime(folder / "A.MP4", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "A.MP4").stat().st_size == before.st_size
    probed.clear()
    assert len(build_index(folder, 0)) == 1
    assert probed == ["A.MP4"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_of_frames_is_looked_into_again_when_a_frame_is_added(
    tmp_path: Path, probed: list[str], linked: bool
) -> None:
    scene = tmp_path / "data" / "scene"
    places = {kind: (tmp_path / "disk" if linked else scene) / kind for kind in ("color", "depth")}
    for kind, place in places.items():
        write_picture(place / "0.jpg")
        if linked:
            scene.mkdir(parents=True, exist_ok=True)
            (scene / kind).symlink_to(place)
    stamp = stamp_of(str(scene))
    os.utime(places["depth"], ns=(stamp.modified + 1, stamp.modified + 1))
    assert stamp_of(str(scene)) != stamp
    (places["depth"] / "0.jpg").unlink()
    assert [build_index(scene, 0).videos[0].frames for _ in range(2)] == [1, 1]
    assert probed == ["scene"]
    write_picture(places["color"] / "1.jpg")
    assert build_index(scene, 0).videos[0].frames == 2


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("listed", [False, True])
def test_series_of_pictures_in_folders_and_lists(tmp_path: Path, listed: bool) -> None:
    """A picture beside a series is told, also by what is kept; so are several series in a folder; each can be named."""
    for name in ("one/img_1", "one/img_2", "one/thumbnail", "two/img_1", "two/img_2", "two/mask_1", "two/mask_2"):
        path = tmp_path / "clips" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 16)).save(path)
    data = tmp_path / "clips"
    if listed:
        data = tmp_path / "list.txt"
        data.write_text("clips/one 0\nclips/two 1\nclips/two/mask_* 2\nclips/two/img_*.jpg 3\n")
    clips = str(tmp_path / "clips")
    for _ in range(2):
        index = build_index(str(data), 0)
        named = [f"{clips}/two/mask_*", f"{clips}/two/img_*.jpg"] if listed else []
        assert [video.path for video in index.videos] == [f"{clips}/one", *named]
        assert [video.frames for video in index.videos] == [2] * (3 if listed else 1)
        assert index.labels == ((0, 2, 3) if listed else (-1,))
        assert dict(index.rejected) == {
            f"{clips}/two": "it holds 2 series of pictures: img_* (2), mask_* (2); name one of them in a list, as "
            "two/img_*, or give each a folder",
            f"{clips}/one/thumbnail.jpg": "it is left out: a single picture beside a series of frames",
        }
    only = build_index(f"{clips}/two/img_*", 0)
    assert (only.layout, [video.frames for video in only.videos]) == ("series of frames", [2])


@pytest.mark.usefixtures("cache")
def test_a_folder_of_frames_is_usable_once_its_damaged_picture_is_mended_in_place(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "data" / "scene" / f"{number}.png", width=32 if number else 40)
    for _ in range(2):
        with pytest.raises(NothingUsable):
            build_index(tmp_path / "data", 0)
    write_picture(tmp_path / "data" / "scene" / "0.png")
    assert len(build_index(tmp_path / "data", 0)) == 1


def test_the_machine_s_failures_are_not_kept(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> VideoInfo:
        if path.endswith("good.mp4"):
            return dataclasses.replace(INFO, path=path)
        try:
            raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UnreadableVideo(path, "it cannot be opened: Permission denied") from error

    monkeypatch.setattr(build, "probe", refuse)
    build_index(folder, 0)
    assert [os.path.basename(entry["path"]) for entry in entries(cache)] == ["good.mp4"]

    def crash(_: object, tasks: list[str], **__: object) -> Iterator[Failure]:
        yield from (Failure(reason="it takes too long") for _ in tasks)

    monkeypatch.setattr(build, "run_in_processes", crash)
    assert dict(build_index(folder, 0).rejected)[str(folder / "A.MP4")] == "decoding fails: it takes too long"
    assert len(entries(cache)) == 1


def test_a_call_that_is_cut_off_loses_nothing(folder: Path, cache: Path, probed: list[str]) -> None:
    def stop(done: int, count: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(folder, 0, progress=stop)
    assert probed == ["A.MP4", "good.mp4"]
    assert len(entries(cache)) == 2
    build_index(folder, 0)
    assert probed == ["A.MP4", "good.mp4", "empty.mp4", "sound.mp4", "text.mp4"]


def test_a_torn_last_line_is_ignored_and_what_follows_it_is_not(cache: Path) -> None:
    keep("/data", "/a.mp4", INFO)
    keep("/data", "/b.mp4", "it is empty")
    (file,) = (cache / "index").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert (known("/a.mp4"), known("/b.mp4")) == (INFO, None)
    keep("/data", "/b.mp4", "it is torn")
    assert (known("/a.mp4"), known("/b.mp4")) == (INFO, "it is torn")


@pytest.mark.parametrize(
    "change",
    [
        {"probe": "0 av 1.0"},
        {"path": 5},
        {"stamp": [1, 2]},
        {"stamp": None},
        {"video": {}},
        {"video": 3},
        {"video": {"frames": "3"}},
        {"video": {"frames": 0}},
        {"video": {"width": -1}},
        {"video": {"fps": float("nan")}},
        {"video": {"bytes": -1}},
        {"video": {"codec": "images"}},
        {"stamp": [1, 2, 3, True]},
        {"reason": 4},
        {"video": dataclasses.asdict(INFO)},
    ],
)
def test_junk_in_the_cache_is_as_if_it_were_not_there(cache: Path, change: dict[str, Any]) -> None:
    keep("/data", "/a.mp4", INFO)
    (file,) = (cache / "index").iterdir()
    (line,) = entries(cache)
    if isinstance(change.get("video"), dict) and len(change["video"]) == 1:
        change = {"video": line["video"] | change["video"]}
    file.write_bytes(b"\xff\0junk\n[]\n3\n\n" + json.dumps(line | change).encode() + b"\n" + b"[" * 10_000 + b"\n")
    assert known("/a.mp4") is None
    keep("/data", "/a.mp4", INFO)
    assert known("/a.mp4") == INFO


@pytest.mark.usefixtures("cache")
def test_everything_known_of_a_video_is_kept() -> None:
    """Names of bytes that are no text among it; a field that cannot be kept would show here."""
    odd = dataclasses.replace(INFO, path="/\udce9\n.mp4", fps=30000 / 1001)
    keep("/data", odd.path, odd)
    assert known(odd.path) == odd
    assert known(odd.path, STAMP._replace(changed=4)) is None
    assert known(odd.path, data="/other") is None


def test_the_file_is_written_anew_when_most_of_it_is_of_no_more_use(cache: Path) -> None:
    paths = [f"/{number}.mp4" for number in range(4)]
    first = IndexCache("/data")
    for path in paths:
        first.add(path, STAMP, "it is empty")
    first.tidy(paths[:2])
    assert len(entries(cache)) == 4
    other = IndexCache("/data")
    first.tidy(paths[:1])
    assert len(entries(cache)) == 4, "another process is using the file"
    other.close()
    first.tidy(paths[:1])
    assert [entry["path"] for entry in entries(cache)] == paths[:1]
    first.close()


def test_vanished_videos_leave_the_cache(folder: Path, cache: Path) -> None:
    build_index(folder, 0)
    for name in ("empty.mp4", "text.mp4", "sound.mp4"):
        (folder / name).unlink()
    build_index(folder, 0)
    assert {os.path.basename(entry["path"]) for entry in entries(cache)} == {"A.MP4", "good.mp4"}


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("place", ["a file", "a file in the way", "no home"])
def test_without_a_usable_cache_folder_all_goes_well(
    folder: Path, cache: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "no home":
        monkeypatch.delenv("LAYERLOCK_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    elif place == "a file":
        cache.touch()
    else:
        cache.mkdir()
        (cache / "index").touch()
    assert [len(build_index(folder, 0)) for _ in range(2)] == [2, 2]


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_cache, "_line", full)
    assert len(build_index(folder, 0)) == 2
    assert entries(cache) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERLOCK_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/common")
    assert index_cache.cache_folder() == Path("/own")
    monkeypatch.setenv("LAYERLOCK_CACHE", "")
    assert index_cache.cache_folder() == Path("/common/layerlock")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert index_cache.cache_folder() == Path("/home/somebody/.cache/layerlock")


ADD_MANY = """
import sys
from layerlock.data.index.cache import IndexCache, Stamp
cache = IndexCache("/data")
for number in range(500):
    cache.add(f"/{sys.argv[1]}/{number}.mp4", Stamp(1, 2, 3, False), "it is empty")
"""


def test_two_processes_at_once_lose_nothing(cache: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(layerlock.__file__).parents[1])}
    both = [subprocess.Popen([sys.executable, "-c", ADD_MANY, name], env=environment) for name in ("one", "two")]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len({entry["path"] for entry in entries(cache)}) == 1000


# progress


def test_progress_is_told_of_every_video(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    build_index(folder, 0, progress=lambda done, count: told.append((done, count)), cache=False)
    assert told == [(done, 6) for done in range(1, 7)]
    assert len(open_source(str(folder), ClipConfig(), 0, workers=0, progress=lambda *now: told.append(now))) == 2
    assert told[6:] == [(done, 6) for done in range(1, 7)]


def test_progress_is_shown_when_it_takes_long_unless_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("layerlock.progress.time.monotonic", lambda: now)
    for quiet in (False, True):
        with Progress(INDEXING, quiet) as progress:
            begin = now
            for done in range(1, 101):
                now = begin + 0.1 * done
                progress(done, 2_000)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "indexing videos: 20 of 2,000",
        "indexing videos: 70 of 2,000",
    ]


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Progress, "PATIENCE_SECONDS", 0.0)
    with Progress(INDEXING) as progress:
        progress(3, 20)
        progress(20, 20)
    assert "20/20" in capsys.readouterr().err


# in words


def video(number: int, **changes: Any) -> VideoInfo:
    return dataclasses.replace(INFO, path=f"/{number}.mp4", **changes)


def test_an_index_in_words() -> None:
    videos = [video(0, fps=30000 / 1001), video(1, fps=29.97), video(2, fps=30.0), video(3, fps=29.8, codec="av1")]
    videos += [video(4, fps=0.5, seconds=7200.0), video(5, fps=15.0)]
    index = Index(
        root="/",
        layout="odd\n\udce9.csv",
        videos=tuple(videos),
        targets={
            "label": Column(values=(1, 1, 0, -1, 1, 1), classes=("ant", "b\nee", "cat")),
            "speed": Column(values=(0.5, math.nan, 2.5, 3.0, 3.0, 1.0)),
        },
        rejected=(("/odd\n\x1b[31m\udce9é name.mp4", "it is empty"),),
    )
    assert describe(index).splitlines() == [
        r"layout    odd\n\udce9.csv",
        "usable    6",
        "rejected  1",
        "length    2.00 hours",
        "codecs",
        "         5  h264",
        "         1  av1",
        "frames a second",
        "         2  29.97",
        "         1  30",
        "         1  about 30",
        "         1  below 1",
        "         1  15",
        "width x height",
        "         6  4 x 2",
        "label: 3 classes",
        "         1  ant",
        r"         4  b\nee",
        "         0  cat",
        "         1  without a class",
        "speed: numbers",
        "         5  0.5 to 3, mean 2",
        "         1  without a number",
        "cannot be used",
        r"  /odd\n\x1b[31m\udce9é name.mp4: it is empty",
    ]


@pytest.mark.parametrize(("sizes", "lines"), [(20, 20), (21, 20), (500, 20)])
def test_long_tables_are_summed_up(sizes: int, lines: int) -> None:
    videos = tuple(video(number, width=100 + number) for number in range(sizes))
    text = describe(Index(root="/", layout="folder", videos=videos)).splitlines()
    table = text[text.index("width x height") + 1 :]
    assert len(table) == lines
    assert sum(int(line.split()[0]) for line in table) == sizes
    assert ("others" in table[-1]) == (sizes > 20)
