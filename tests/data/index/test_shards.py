from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from tiny import config, run_config
from video_files import write_video

import layerlock
from layerlock.data import ClipConfig, batches, open_source, save_source
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.index.listing import NothingUsable
from layerlock.data.index.shards import build as build_module
from layerlock.data.index.shards.contents import read_contents
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.vit import ViTConfig

CLIP = ClipConfig(frames=4, stride=2, size=32, resize=1.25)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERLOCK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos, each with its own number of frames."""
    root = tmp_path_factory.mktemp("files")
    for number in range(7):
        write_video(root / f"{number:09d}.mp4", frames=20 + 3 * number, size=[(40, 100), (64, 48)][number % 2])
    return root


Members = list[tuple[str, bytes]]


def write_shard(path: Path, members: Members, change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            tar.addfile(member, io.BytesIO(content))
    return path


def members_of(folder: Path, numbers: range) -> Members:
    """What video2dataset writes: a video, its caption and its json."""
    members: Members = []
    for number in numbers:
        said = {
            "url": "http://a",
            "key": f"{number:09d}",
            "status": "success",
            "error_message": None,
            "clips": [[0, 1]],
        }
        said |= {"label": "xyz"[number % 3], "speed": number / 2, "group": "g" * (number == 3)}
        members.append((f"{number:09d}.json", json.dumps(said).encode()))
        members.append((f"{number:09d}.txt", b"a caption"))
        members.append((f"{number:09d}.mp4", (folder / f"{number:09d}.mp4").read_bytes()))
    return members


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """Two shards of video2dataset, with the files that it leaves beside them."""
    write_shard(tmp_path / "s" / "00000.tar", members_of(folder, range(4)))
    write_shard(tmp_path / "s" / "00001.tar", members_of(folder, range(4, 7)))
    for name in ("00000.parquet", "00000_stats.json"):
        (tmp_path / "s" / name).write_text("{}")
    return tmp_path / "s"


@pytest.mark.parametrize("per_decode", [1, 4])
def test_clips_are_those_of_the_files_bit_for_bit(folder: Path, shards: Path, per_decode: int) -> None:
    clip = replace(CLIP, per_decode=per_decode)
    files, packed = FolderSource(build_index(folder, 0), clip, 3), FolderSource(build_index(shards, 0), clip, 3)
    packed = pickle.loads(pickle.dumps(packed))
    for one, other in zip(files.index.videos, packed.index.videos, strict=True):
        assert replace(one, path="") == replace(other, path="", span=None)
    for group in range(2 * 7):
        for one, other in zip(files.samples(group), packed.samples(group), strict=True):
            assert torch.equal(one.video_tchw, other.video_tchw)
            assert (one.crop, one.flip, Path(one.name).name) == (other.crop, other.flip, Path(other.name).name)


def test_every_video_comes_once_in_an_epoch_from_any_number_of_workers(shards: Path) -> None:
    source = open_source(str(shards), CLIP, 5, workers=0)
    here = list(batches(source, batch=7, start=0, stop=3, workers=0))
    for batch in here:
        assert set(batch.names) == {video.path for video in source.index.videos}  # type: ignore[attr-defined]
    for one, other in zip(here, batches(source, batch=7, start=0, stop=3, workers=2), strict=True):
        assert one.names == other.names
        assert torch.equal(one.video_btchw, other.video_btchw)
    (later,) = batches(source, batch=7, start=2, stop=3, workers=0)
    assert torch.equal(later.video_btchw, here[2].video_btchw)


def test_targets_and_groups_of_the_json(shards: Path) -> None:
    index = build_index(shards, 0)
    assert index.layout == "shards"
    assert index.classes == ("x", "y", "z")
    assert index.labels == (0, 1, 2, 0, 1, 2, 0)
    assert tuple(index.groups) == ("", "", "", "g", "", "", "")
    assert len(set(index.group_numbers)) == 7
    assert "speed" not in index.targets
    for _ in range(2):  # of the shards, and of what is known of them
        speed = build_index(shards, 0, targets={"speed": None}).targets["speed"]
        assert (speed.kind, tuple(speed.values)) == ("float", (0, 0.5, 1, 1.5, 2, 2.5, 3))
    assert "speed" in build_index(shards, 0).targets
    with pytest.raises(
        LayerlockError, match=r"there is no column clips; the json of the videos has: url, key, status, la"
    ):
        build_index(shards, 0, targets={"clips": None})
    with pytest.raises(LayerlockError, match=r"s, video 1: label is 'x'; it has to be a number"):
        build_index(shards, 0, targets={"label": "float"})


def test_the_class_in_a_cls_file(folder: Path, tmp_path: Path) -> None:
    video = (folder / "000000000.mp4").read_bytes()
    write_shard(tmp_path / "s" / "a.tar", [("a.mp4", video), ("a.cls", b"2"), ("b.cls", b"0\n"), ("b.mp4", video)])
    assert build_index(tmp_path / "s", 0).labels == (2, 0)


def test_the_index_is_made_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_index(shards, 0)
    names = {path.name for path in shards.iterdir()}
    assert {"00000_index.json", "00001_index.json", "index.safetensors"} < names
    assert load_file(shards / "index.safetensors")["frames"].tolist() == [20, 23, 26, 29, 32, 35, 38]
    monkeypatch.setattr(build_module, "read_contents", None)
    monkeypatch.setattr(build_module, "read_record", None)
    again = build_index(shards, 0)
    assert tuple(again.videos) == tuple(first.videos)
    assert again.videos[-1] == first.videos[6]
    assert again.videos[2:4] == tuple(first.videos)[2:4]
    assert again.fingerprint == first.fingerprint
    with pytest.raises(IndexError):
        again.videos[7]


def test_shards_that_are_added_and_taken_away_are_noticed(folder: Path, shards: Path) -> None:
    before = build_index(shards, 0)
    write_shard(shards / "00002.tar", members_of(folder, range(1)))
    after = build_index(shards, 0)
    assert len(after) == 8
    assert after.fingerprint != before.fingerprint
    (shards / "00000.tar").unlink()
    assert len(build_index(shards, 0)) == 4


def test_moved_shards_are_the_same_and_need_no_new_index(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_index(shards, 0)
    shutil.move(shards, tmp_path / "moved")
    monkeypatch.setattr(build_module, "read_contents", None)
    after = build_index(tmp_path / "moved", 0)
    assert after.fingerprint == before.fingerprint
    assert after.videos[0].path == str(tmp_path / "moved" / "00000.tar" / "000000000.mp4")


def test_shards_in_a_folder_that_cannot_be_written(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != shards and access(path, mode))
    before = {path.name for path in shards.iterdir()}
    assert len(build_index(shards, 0)) == 7
    assert {path.name for path in shards.iterdir()} == before
    monkeypatch.setattr(build_module, "read_contents", None)
    assert len(build_index(shards, 0)) == 7


def test_a_list_of_shards(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"s/00001.tar\n{shards}/00000.tar\ns/none.tar\n\n")
    index = build_index(tmp_path / "list.txt", 0)
    assert [Path(video.path).name for video in index.videos][:4] == [f"{n:09d}.mp4" for n in (4, 5, 6, 0)]
    assert index.rejected == ((str(tmp_path / "s" / "none.tar"), "it cannot be opened: No such file or directory"),)
    assert len(build_index(tmp_path / "list.txt", 0)) == 7
    assert build_index(tmp_path / "list.txt", 0, root=str(tmp_path)).root == str(tmp_path)


def test_members_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    video = (folder / "000000000.mp4").read_bytes()

    def change(member: tarfile.TarInfo) -> None:
        if member.name == "link.mp4":
            member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

    members = [
        ("./a.mp4", video),
        ("a.webm", video),
        ("a.mp4", video),
        ("../up.mp4", video),
        ("b/../../up.mp4", video),
        ("/abs.mp4", video),
        ("link.mp4", b""),
        ("text.mp4", b"no video"),
        ("list.mp4", b"ffconcat version 1.0\nfile a.mp4\n"),
        ("empty.mp4", b""),
        ("bad.json", b"{"),
        ("bad.mp4", video),
        ("array.json", b"[]"),
        ("array.mp4", video),
        ("alone.json", b"{}"),
        ("._a.mp4", b"of another system"),
        ("note.txt", b""),
        ("deep/er/c.d.mp4", video),
        ("ü\udcff.mp4", video),
    ]
    shard = write_shard(tmp_path / "s" / "00000.tar", members, change)
    for _ in range(2):
        index = build_index(tmp_path / "s", 0)
        assert [video.path.removeprefix(f"{shard}/") for video in index.videos] == [
            *("a.mp4", "bad.mp4", "array.mp4", "deep/er/c.d.mp4", "ü\udcff.mp4"),
        ]
        reasons = {path.removeprefix(f"{shard}/"): reason for path, reason in index.rejected}
        assert reasons.pop("list.mp4")
        assert reasons.pop("text.mp4")
        assert reasons == {
            "a.webm": "it is left out: a.mp4 has the same key",
            "a.mp4": "it is in the shard twice; the first is used",
            "../up.mp4": "its name leads out of the shard",
            "b/../../up.mp4": "its name leads out of the shard",
            "/abs.mp4": "its name leads out of the shard",
            "link.mp4": "it is a link or a device, not a file",
            "empty.mp4": "it is empty",
            "bad.json": "it cannot be read, its video is used without it: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)",
            "array.json": "it cannot be read, its video is used without it: it is not an object",
            "alone.json": "no video that can be used belongs to it",
        }


def test_a_damaged_shard_has_the_videos_before_the_damage(folder: Path, tmp_path: Path) -> None:
    members = members_of(folder, range(3))
    shard = write_shard(tmp_path / "s" / "00000.tar", members)
    with tarfile.open(shard) as tar:
        places = {member.name: member.offset_data for member in tar}
    whole = shard.read_bytes()
    second = places["000000001.mp4"]
    shard.write_bytes(whole[: second + 100])
    index = build_index(tmp_path / "s", 0)
    assert len(index) == 1
    assert index.rejected == (
        (f"{shard}/000000001.mp4", "the shard ends in the middle of it"),
        (str(shard), f"it is damaged at byte {second + 100:,}; what follows is left out"),
    )
    third = places["000000002.mp4"] - tarfile.BLOCKSIZE
    shard.write_bytes(whole[:third] + b"?" * 100 + whole[third + 100 :])
    index = build_index(tmp_path / "s", 0)
    assert len(index) == 2
    assert index.rejected == (
        (str(shard), f"it is damaged at byte {third:,}; what follows is left out"),
        (f"{shard}/000000002.json", "no video that can be used belongs to it"),
    )
    write_shard(tmp_path / "s" / "00001.tar", members[:3])
    shard.write_bytes(b"")
    (tmp_path / "s" / "00002.tar").write_bytes(b"not a tar file" * 100)
    index = build_index(tmp_path / "s", 0)
    assert len(index) == 1
    assert [reason for _, reason in index.rejected] == ["it is no tar file", "it is no tar file"]
    (tmp_path / "s" / "00001.tar").unlink()
    with pytest.raises(NothingUsable, match="none of the 2 videos"):
        build_index(tmp_path / "s", 0)


def test_damaged_bytes_are_never_more_than_a_reason(folder: Path, tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "s" / "00000.tar", members_of(folder, range(3))).read_bytes()
    with tarfile.open(tmp_path / "s" / "00000.tar") as tar:
        headers = [member.offset for member in tar]
    draw = random.Random(0)
    for turn in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            at = draw.choice(headers) + draw.randrange(512)
            damaged[at] = draw.choice([0, 255, 128, *b"07xLKg"]) if turn % 2 else draw.randrange(256)
        for header in headers:  # half of the time as one who forges it
            if turn % 4 < 2:
                total = sum(damaged[header : header + 148]) + 256 + sum(damaged[header + 156 : header + 512])
                damaged[header + 148 : header + 156] = f"{total:06o}\0 ".encode()
        path = tmp_path / "forged.tar"
        path.write_bytes(damaged[: draw.choice([len(damaged), draw.randrange(len(damaged))])])
        contents = read_contents(str(path), path.stat().st_size)
        assert len(contents.videos) <= 9
        assert all(".." not in video.name for video in contents.videos)


def test_a_shard_that_changes_during_training_costs_its_videos(folder: Path, shards: Path) -> None:
    source = FolderSource(build_index(shards, 0), CLIP, 3)
    good = [source.samples(group)[0] for group in range(7)]
    write_shard(shards / "00000.tar", members_of(folder, range(6, 0, -1)))
    seen = [source.samples(group)[0] for group in range(7)]
    skipped = {entry for sample in seen for entry in sample.skipped}
    lost = str(shards / "00000.tar")
    assert {path for path, _ in skipped} == {f"{lost}/{n:09d}.mp4" for n in range(4)}
    assert {reason for _, reason in skipped} == {"its shard has changed since it was indexed"}
    for before, after in zip(good, seen, strict=True):
        if not before.name.startswith(lost):
            assert torch.equal(before.video_tchw, after.video_tchw)
    (shards / "00000.tar").unlink()
    skipped = {entry for group in range(7) for entry in source.samples(group)[0].skipped}
    assert {reason for _, reason in skipped} == {"it cannot be opened: No such file or directory"}


def test_a_run_is_resumed_on_its_shards_and_on_no_others(folder: Path, shards: Path, tmp_path: Path) -> None:
    source = open_source(str(shards), CLIP, 5, workers=0)
    save_source(source, str(shards), tmp_path / "index.json")
    assert (tmp_path / "index.json").stat().st_size < 100
    (shards / "00001.tar").rename(tmp_path / "lost.tar")
    again = open_source(str(shards), CLIP, 5, saved=tmp_path / "index.json")
    assert again.fingerprint == source.fingerprint
    assert len(again) == 7
    (tmp_path / "lost.tar").rename(shards / "00001.tar")
    shutil.move(shards, tmp_path / "moved")
    assert (
        open_source(str(tmp_path / "moved"), CLIP, 5, saved=tmp_path / "index.json").fingerprint == source.fingerprint
    )
    write_shard(tmp_path / "moved" / "00001.tar", members_of(folder, range(6)))
    (tmp_path / "moved" / "index.safetensors").unlink()
    with pytest.raises(LayerlockError, match="the shards hold other videos than the run was trained on; resume on"):
        open_source(str(tmp_path / "moved"), CLIP, 5, saved=tmp_path / "index.json")


def test_a_damaged_index_is_made_again(shards: Path) -> None:
    first = tuple(build_index(shards, 0).videos)
    table, record = shards / "index.safetensors", shards / "00000_index.json"
    content = table.read_bytes()
    for damaged in (b"", content[:50], content[:-40], b"\xff" * 100, content.replace(b'"version', b'"version_')):
        table.write_bytes(damaged)
        record.write_text('{"version": 1, "videos": [{}]}')
        assert tuple(build_index(shards, 0).videos) == first
        assert table.read_bytes() == content


def test_training_and_embedding_read_shards(shards: Path, tmp_path: Path) -> None:
    clip = ClipConfig(frames=8, stride=1, size=24, resize=1.0)
    changes = {"clip": clip, "batch": 2, "steps": 4, "data": str(shards), "run": run_config(threads=1)}
    layerlock.pretrain(config(tmp_path / "run", **changes), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    encoder = Encoder.random(
        ViTConfig(width=24, depth=2, mlp=24, heads=2, patch=(2, 8, 8)), ClipShape(frames=8, stride=1, size=24)
    )
    vectors = layerlock.embed(encoder, shards, workers=0, per="clip")
    assert len(vectors.files) == 7
