from __future__ import annotations

import errno
import json
import os
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video_files import number_of, numbered, tag_rotation, write_audio_only, write_video

from layerlock.data import pack as pack_module
from layerlock.data.decode import frame_times, read_whole
from layerlock.data.decode.video import UnreadableVideo
from layerlock.data.index import build_index
from layerlock.data.pack import Packed, write_pack
from layerlock.data.transcode import Encoding, transcode
from layerlock.errors import ConfigError, LayerlockError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of two classes, each with its own number of frames, two of them turned; and two broken files."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write_video(root / "ab"[number % 2] / f"{number}.mp4", frames=20 + number, size=(64, 320))
    tag_rotation(root / "a" / "4.mp4", 1)
    tag_rotation(root / "b" / "5.mp4", 3, mirrored=True)
    (root / "b" / "text.mp4").write_text("no video")
    write_audio_only(root / "a" / "sound.mp4")
    return root


def pack(data: Path, out: Path, **changes: Any) -> Packed:
    return write_pack(str(data), out, Encoding(short_side=32), **{"shard_mb": 0.02, "workers": 0, **changes})


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_layout_is_that_of_video2dataset_and_the_counts_add_up(folder: Path, tmp_path: Path) -> None:
    made = pack(folder, tmp_path / "p")
    assert (made.videos, len(made.left_out)) == (8, 2)
    assert made.shards > 1
    assert {path for path, _ in made.left_out} == {"a/sound.mp4", "b/text.mp4"}
    assert made.bytes == sum(path.stat().st_size for path in made.out.glob("*.tar"))
    seen = []
    for number in range(made.shards):
        stats = json.loads((made.out / f"{number:05d}_stats.json").read_text())
        with tarfile.open(made.out / f"{number:05d}.tar") as tar:
            names = tar.getnames()
            keys = [f"{number:05d}{n:04d}" for n in range(stats["successes"])]
            assert names == [f"{key}.{ending}" for key in keys for ending in ("mp4", "json")]
            for key in keys:
                file = tar.extractfile(f"{key}.json")
                assert file is not None
                said = json.load(file)
                assert said["key"] == key
                assert said["label"] == said["path"][0]
                assert said["original"]["frames"] == 20 + int(said["path"][2])
                seen.append(said["path"])
        assert stats["count"] == stats["successes"] == stats["status_dict"]["success"]
    assert sorted(seen) == sorted(f"{'ab'[n % 2]}/{n}.mp4" for n in range(8))
    about = json.loads((made.out / "pack.json").read_text())
    assert (about["packed"], about["shards"]) == (8, made.shards)
    assert about["left_out"] == [list(pair) for pair in made.left_out]
    assert not [path for path in made.out.iterdir() if path.name.startswith(".")]


def test_every_frame_is_there_at_its_time(folder: Path, tmp_path: Path) -> None:
    index = build_index(pack(folder, tmp_path / "p").out, 0)
    originals = build_index(folder, 0).videos
    for video, original in zip(index.videos, originals, strict=True):
        assert (video.frames, video.fps, video.seconds) == (original.frames, original.fps, original.seconds)
        assert video.seekable
        assert (video.rotation, video.mirrored) == (0, False)
        assert sorted((video.height, video.width)) == [32, 160]
        assert (video.height < video.width) == (original.height < original.width)
        times, frame_nhwc = read_whole(video, size=(video.height, video.width), most=100)
        assert times == frame_times(original)
        before_nhwc = read_whole(original, size=(video.height, video.width), most=100)[1]
        assert np.abs(frame_nhwc.astype(int) - before_nhwc).mean() < 5
        decoded = [np.rot90(x[:, ::-1] if original.mirrored else x, -original.rotation) for x in frame_nhwc]
        assert [number_of(x) for x in decoded] == list(range(original.frames))


def test_uneven_times_gaps_and_small_pictures(tmp_path: Path) -> None:
    uneven = [0, 1, 2, 5, 6, 11, 13, 14, 20, 21, 27, 28]
    write_video(tmp_path / "v" / "uneven.mp4", frames=12, times=uneven)
    write_video(tmp_path / "v" / "gap.mp4", frames=30, times=[n + (n > 20) for n in range(30)])
    write_video(tmp_path / "v" / "ts.ts", frames=30, fps=30)
    write_video(tmp_path / "v" / "tiny.mkv", frames=3, size=(1, 1), codec="ffv1", pix_fmt="bgr0")
    made = pack(tmp_path / "v", tmp_path / "p")
    packed = {
        said.split(".")[0]: video for said, video in zip(paths(made.out), build_index(made.out, 0).videos, strict=True)
    }
    originals = {Path(video.path).stem: video for video in build_index(tmp_path / "v", 0).videos}
    assert packed.keys() == originals.keys()
    for name, video in packed.items():
        assert np.allclose(frame_times(video), frame_times(originals[name]), rtol=0, atol=1e-4), name
    _, frame_nhwc = read_whole(packed["uneven"], size=(32, 160), most=100)
    assert [number_of(x) for x in frame_nhwc] == list(range(12))
    assert packed["gap"].missing == ()
    assert (packed["tiny"].height, packed["tiny"].width) == (2, 2)


def paths(out: Path) -> list[str]:
    """Of each packed video, what it was made of."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*_index.json"))]
    return [video["fields"]["path"] for record in records for video in record["videos"]]


def test_pictures_look_as_before(tmp_path: Path) -> None:
    """A smooth coloured picture, resized and encoded, differs by the grey level or two that H.264 files cost."""
    row, column = np.mgrid[0:192, 0:320] / 320
    picture = np.stack([row, column, 1 - column], -1) * 150
    (tmp_path / "v").mkdir()
    for number in range(4):
        Image.fromarray((picture + 20 + 10 * number).astype(np.uint8)).save(tmp_path / "v" / f"{number}.png")
    out = write_pack(str(tmp_path / "v"), tmp_path / "p", Encoding(short_side=96), shard_mb=1, workers=0).out
    (original,), (packed,) = build_index(tmp_path / "v", 0).videos, build_index(out, 0).videos
    _, before = read_whole(original, size=(96, 160), most=9)
    _, after = read_whole(packed, size=(96, 160), most=9)
    difference = after.astype(float) - before
    assert np.abs(difference).mean() < 2
    assert np.abs(difference.mean((0, 1, 2))).max() < 1.6


def test_targets_and_groups_come_back(folder: Path, tmp_path: Path) -> None:
    rows = ["file_name,label,speed:float,room:class,group"]
    rows += [f"{'ab'[n % 2]}/{n}.mp4,{'xyz'[n % 3]},{n / 4 if n else ''},{n % 2 + 1},{'g' * (n > 3)}" for n in range(8)]
    rows += ["missing.mp4,nowhere,1,3,h"]
    (folder / "list.csv").write_text("\n".join(rows))
    index = build_index(folder / "list.csv", 0)
    packed = build_index(pack(folder / "list.csv", tmp_path / "p").out, 0)
    (folder / "list.csv").unlink()
    assert packed.targets.keys() == index.targets.keys() == {"label", "speed", "room"}
    assert packed.classes == index.classes == ("nowhere", "x", "y", "z")
    assert packed.labels == index.labels
    for name, column in index.targets.items():
        assert np.array_equal(packed.targets[name].values, column.values, equal_nan=True)
        assert packed.targets[name].classes == column.classes
    assert tuple(packed.groups) == tuple(index.groups)


def test_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert content(pack(folder, tmp_path / "a").out) == content(pack(folder, tmp_path / "b", workers=2).out)


@pytest.mark.parametrize("moment", range(1, 10, 2))
def test_a_pack_goes_on_after_a_kill(folder: Path, tmp_path: Path, moment: int) -> None:
    """The process kills itself when it is about to move the file number `moment` to its place."""
    whole = content(pack(folder, tmp_path / "whole").out)
    child = os.fork()
    if child == 0:
        _die_at(moment)
        pack(folder, tmp_path / "p")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    left = content(tmp_path / "p")
    assert {name: left[name] for name in left if name.endswith(".tar") and name in whole} == {
        name: whole[name] for name in left if name.endswith(".tar") and name in whole
    }
    again = pack(folder, tmp_path / "p")
    assert content(tmp_path / "p") == whole
    assert again.videos == 8
    assert len(again.left_out) == 2


def _die_at(moment: int) -> None:
    replace, calls = Path.replace, list[Path]()

    def counted(self: Path, target: Path) -> Path:
        if not Path(target).name.startswith("."):
            calls.append(self)
        if len(calls) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = counted  # type: ignore[method-assign, assignment]


def test_what_was_packed_is_not_packed_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack(folder, tmp_path / "p")
    monkeypatch.setattr(pack_module, "transcode", None)
    assert pack(folder, tmp_path / "p") == first


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["transcode", "write_record", "_member", "build_shards"])
def test_a_full_disk_is_told_and_the_command_is_repeated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pack_module, what, full)
        with pytest.raises(LayerlockError, match=r"p: it cannot be written \(No space left on device\); repeat"):
            pack(folder, tmp_path / "p")
    assert not [path for path in (tmp_path / "p").iterdir() if path.name.startswith(".") or path.suffix == ".mp4"]
    assert pack(folder, tmp_path / "p").videos == 8


def test_a_video_that_breaks_after_it_was_indexed_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcode: Callable[..., Any] = pack_module.transcode

    def breaking(video: Any, *given: Any) -> Any:
        if video.path.endswith(("2.mp4", "7.mp4")):
            raise UnreadableVideo(video.path, "a part of it is damaged")
        return transcode(video, *given)

    monkeypatch.setattr(pack_module, "transcode", breaking)
    made = pack(folder, tmp_path / "p")
    assert made.videos == 6
    assert ("a/2.mp4", "a part of it is damaged") in made.left_out
    assert ("b/7.mp4", "a part of it is damaged") in made.left_out
    assert len(made.left_out) == 4
    stats = [json.loads(path.read_text()) for path in sorted(made.out.glob("*_stats.json"))]
    assert sum(each["count"] for each in stats) == 8
    assert stats[0]["status_dict"] == {"success": stats[0]["successes"], "a part of it is damaged": 1}


def test_a_video_that_does_not_hold_what_is_known_is_an_error(folder: Path, tmp_path: Path) -> None:
    video = build_index(folder / "a" / "0.mp4", 0).videos[0]
    for known in (replace(video, frames=21), replace(video, frames=19), replace(video, bytes=100)):
        with pytest.raises(UnreadableVideo):
            transcode(known, tmp_path / "a.mp4", Encoding())
    with pytest.raises(OSError, match="No such file"):
        transcode(video, tmp_path / "none" / "a.mp4", Encoding())


def test_another_pack_is_refused(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "p")
    with pytest.raises(LayerlockError, match=r"other settings \(shard_mb 0.02 there, 1 here\)"):
        pack(folder, tmp_path / "p", shard_mb=1)
    write_video(tmp_path / "v" / "0.mp4")
    with pytest.raises(LayerlockError, match="other videos"):
        pack(tmp_path / "v", tmp_path / "p")
    with pytest.raises(LayerlockError, match="is not empty, and no pack"):
        pack(folder, tmp_path / "v")
    (tmp_path / "p" / "pack.json").write_text("[")
    with pytest.raises(LayerlockError, match=r"pack\.json: it is damaged"):
        pack(folder, tmp_path / "p")


def test_a_refused_folder_keeps_its_files(folder: Path, tmp_path: Path) -> None:
    half = tmp_path / "mine" / "deep" / ".film.mp4.part"
    half.parent.mkdir(parents=True)
    half.write_text("of a download")
    with pytest.raises(LayerlockError, match="is not empty, and no pack"):
        pack(folder, tmp_path / "mine")
    assert half.read_text() == "of a download"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["deep"]


@pytest.mark.parametrize("changed", ["y,1,g", "x,2,g", "x,1,h"])
def test_a_pack_of_other_labels_numbers_or_groups_is_refused(tmp_path: Path, changed: str) -> None:
    write_video(tmp_path / "v" / "0.mp4")
    write_video(tmp_path / "v" / "1.mp4")
    rows, other = "file_name,label,speed:float,group\n1.mp4,y,1,g\n0.mp4,", tmp_path / "v" / "list.csv"
    other.write_text(rows + "x,1,g")
    pack(other, tmp_path / "p")
    other.write_text((rows if changed[0] == "x" else rows.replace("y,", "x,")) + changed)
    with pytest.raises(LayerlockError, match="other videos, targets or groups"):
        pack(other, tmp_path / "p")


def test_damaged_counts_are_named(folder: Path, tmp_path: Path) -> None:
    whole = content(pack(folder, tmp_path / "p").out)
    counts = tmp_path / "p" / "00000_stats.json"
    counts.write_text("[")
    with pytest.raises(LayerlockError, match=r"00000_stats\.json: it is damaged; remove it"):
        pack(folder, tmp_path / "p")
    counts.unlink()
    pack(folder, tmp_path / "p")
    assert content(tmp_path / "p") == whole


def test_frames_that_are_hours_apart_keep_their_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "0.mp4", frames=4, times=[0, 60_000, 120_000, 180_000])
    (original,) = build_index(tmp_path / "v", 0).videos
    (packed,) = build_index(pack(tmp_path / "v", tmp_path / "p").out, 0).videos
    assert original.fps < 1 / 1001
    assert np.allclose(frame_times(packed), frame_times(original))


def test_settings_are_checked_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        write_pack("nowhere", tmp_path, Encoding(short_side=8, gop=0, crf=99), shard_mb=0)
    assert all(word in str(error.value) for word in ("short_side is 8", "gop is 0", "crf is 99", "shard_mb is 0"))


def test_shards_can_be_packed_again(folder: Path, tmp_path: Path) -> None:
    once = pack(folder, tmp_path / "once").out
    twice = build_index(pack(once, tmp_path / "twice", shard_mb=1).out, 0)
    assert twice.labels == build_index(once, 0).labels
    _, frame_nhwc = read_whole(twice.videos[0], size=(32, 160), most=100)
    assert np.allclose(frame_nhwc[5], numbered(5, 32, 160), atol=60)
