"""Arrays that several evaluations share: what stays, what goes, and who decides."""

from __future__ import annotations

import gc
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from layerlock.features import store
from layerlock.features.store import LEFT_BEHIND, MAKER, Array, make_room
from layerlock.holder import Holder, this_process

DEAD = {"pid": 2**22 + 1}
AWAY = {"host": "elsewhere", "pid": 2**22 + 1}


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def made(root: Path, name: str, used: float) -> int:
    """An array of 4 kB that was last used so many seconds ago; its bytes."""
    array = Array(root / name, 1_000)
    array.put(0, torch.zeros(1_000, 1))
    array.finish({})
    touch(root / name / "done", used)
    return sum(path.stat().st_size for path in (root / name).iterdir())


def touch(path: Path, silent: float) -> None:
    os.utime(path, (time.time() - silent,) * 2)


def part_of(root: Path, name: str, maker: Holder | None, silent: float = 0.0) -> None:
    folder = root / f"{name}.part"
    folder.mkdir()
    (folder / "rows.npy").write_bytes(b"rows")
    if maker is not None:
        maker.save(folder / MAKER)
        touch(folder / MAKER, silent)
    touch(folder, silent)


def test_two_that_are_made_at_once_do_not_write_into_each_other(tmp_path: Path) -> None:
    x = torch.arange(12.0).view(6, 2)
    slow, fast = Array(tmp_path / "a", 6), Array(tmp_path / "a", 6)
    slow.put(0, x[:3])
    fast.put(0, x)
    assert not slow.done
    fast.finish({"b.mp4": "broken"})
    slow.put(3, x[3:])
    slow.finish({})
    for array in (slow, fast, Array(tmp_path / "a", 6)):
        assert array.done
        assert array.lost() == {"b.mp4": "broken"}
        assert torch.equal(array.take([5, 0, 3]), x[[5, 0, 3]])
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["done", "rows.npy"]


def test_of_two_that_are_done_at_the_same_moment_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rename = torch.arange(12.0).view(6, 2), Path.rename
    first, second = Array(tmp_path / "a", 6), Array(tmp_path / "a", 6)
    first.put(0, x)
    second.put(0, x)

    def a_moment_later(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        first.finish({})
        return self.rename(target)

    monkeypatch.setattr(Path, "rename", a_moment_later)
    second.finish({})
    assert names(tmp_path) == ["a"]
    for array in (first, second):
        assert array.use()
        assert torch.equal(array.take([5, 0]), x[[5, 0]])


def test_what_is_damaged_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.npy").write_bytes(b"torn")
    made(tmp_path, "a", used=0)
    assert torch.equal(Array(tmp_path / "a", 1_000).take([3]), torch.zeros(1, 1))


def test_only_what_nobody_can_be_at_work_on_is_removed(tmp_path: Path) -> None:
    me = this_process()
    part_of(tmp_path, "a.dead", replace(me, **DEAD))
    part_of(tmp_path, "a.number given again", replace(me, began="1"))
    part_of(tmp_path, "b.away for long", replace(me, **AWAY), LEFT_BEHIND + 60)
    part_of(tmp_path, "b.nameless for long", None, LEFT_BEHIND + 60)
    stay = {
        "a.mine": me,
        "a.away": replace(me, **AWAY),
        "a.other container": replace(me, space="pid:[7]", **DEAD),
        "b.before a restart": replace(me, boot="before", **DEAD),
        "b.nameless": None,
    }
    for name, maker in stay.items():
        part_of(tmp_path, name, maker, LEFT_BEHIND / 2)
    part_of(tmp_path, "b.at work for long", me)
    make_room(tmp_path, 0, 10**9)
    assert names(tmp_path) == sorted(f"{name}.part" for name in (*stay, "b.at work for long"))


def test_who_makes_and_reads_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BEAT", 0.0)
    array = Array(tmp_path / "a", 4)
    array.put(0, torch.ones(2, 1))
    (sign,) = tmp_path.glob(f"*.part/{MAKER}")
    touch(sign, LEFT_BEHIND)
    array.put(2, torch.ones(2, 1))
    assert time.time() - sign.stat().st_mtime < LEFT_BEHIND / 2
    array.finish({})
    assert array.use()
    (sign,) = tmp_path.glob("a/used.*")
    touch(sign, LEFT_BEHIND)
    array.take([0])
    assert time.time() - sign.stat().st_mtime < LEFT_BEHIND / 2


def test_those_used_the_longest_ago_make_room(tmp_path: Path) -> None:
    size = made(tmp_path, "old", 3_000)
    for name, used in (("oldest", 4_000), ("new", 1_000), ("middle", 2_000)):
        assert made(tmp_path, name, used) == size
    assert make_room(tmp_path, 0, 4 * size) == 4 * size
    assert names(tmp_path) == ["middle", "new", "old", "oldest"]
    assert make_room(tmp_path, size, 4 * size) == 3 * size
    assert names(tmp_path) == ["middle", "new", "old"]
    assert Array(tmp_path / "old", 1_000).use(), "used just now"
    gc.collect()
    assert make_room(tmp_path, 2 * size, 3 * size) == size
    assert names(tmp_path) == ["old"]


def test_what_somebody_reads_stays_and_what_a_killed_reader_held_goes(tmp_path: Path) -> None:
    for name in ("mine", "dead", "away", "away for long"):
        made(tmp_path, name, 3_000)
    array = Array(tmp_path / "mine", 1_000)
    assert array.use()
    me = this_process()
    for name, holder in (("dead", DEAD), ("away", AWAY), ("away for long", AWAY)):
        replace(me, **holder).save(tmp_path / name / "used.x")
    touch(tmp_path / "away for long" / "used.x", LEFT_BEHIND + 60)
    make_room(tmp_path, 1, 0)
    assert names(tmp_path) == ["away", "mine"]
    assert array.take([999]).item() == 0
    del array
    gc.collect()
    make_room(tmp_path, 1, 0)
    assert names(tmp_path) == ["away"]


def test_a_reader_that_comes_while_room_is_made_keeps_its_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a", 3_000)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if self.name == "a":
            this_process().save(self / "used.x")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    make_room(tmp_path, 1, 0)
    assert names(tmp_path) == ["a"]


def test_what_is_not_there_cannot_be_used(tmp_path: Path) -> None:
    assert not Array(tmp_path / "a", 1).use()
    assert make_room(tmp_path / "none", 5, 0) == 0
