"""One writer in a folder, named; and what is left of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layerlock import holder, lock
from layerlock.errors import LayerlockError
from layerlock.holder import Holder, read_holder, this_process
from layerlock.lock import BEAT, NAME, RESTARTED, SILENT, TURN, FolderLock

HOLD = """
import os, sys, time
from pathlib import Path
from layerlock.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(600)
"""


def held_by(folder: Path, found: Holder, silent: float = 0.0) -> None:
    found.save(folder / NAME)
    then = time.time() - silent
    os.utime(folder / NAME, (then, then))


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_by_the_name_of_the_first(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LayerlockError, match="in use by") as error, FolderLock(tmp_path):
        pass
    mine = this_process()
    for part in (mine.user, f"on {mine.host}", f"process {other.pid},", "since 2", sys.executable):
        assert part in str(error.value)
    assert (tmp_path / NAME).exists(), "it is left to its holder"


def test_a_killed_holder_is_in_nobodys_way_even_before_its_parent_knows(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet told of
    with FolderLock(tmp_path):
        assert read_holder(tmp_path / NAME).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_is_refused_twice_and_the_folder_is_free_again_after(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with first:
        with pytest.raises(LayerlockError, match=f"process {os.getpid()}"), FolderLock(tmp_path):
            pass
        first.check()
    with pytest.raises(RuntimeError, match="on the way"), FolderLock(tmp_path):
        raise RuntimeError("on the way")
    with FolderLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "silent", "free"),
    [
        ({}, 0.0, False),
        ({"began": "1"}, 0.0, True),  # its number was given again
        ({"began": ""}, 0.0, False),
        ({"pid": 2**22 + 1}, 0.0, True),
        ({"host": "elsewhere"}, 0.0, False),
        ({"host": "elsewhere", "pid": 2**22 + 1}, SILENT - 60, False),  # a number of another machine says nothing
        ({"host": "elsewhere"}, SILENT + 60, True),
        ({"space": "pid:[7]", "pid": 2**22 + 1}, SILENT - 60, False),  # nor does one of another container
        ({"space": "pid:[7]"}, SILENT + 60, True),
        ({"boot": "before"}, RESTARTED - 30, False),  # perhaps another machine of this name
        ({"boot": "before"}, RESTARTED + 30, True),  # a power cut
    ],
)
def test_what_is_known_to_have_ended_is_replaced_and_nothing_else(
    tmp_path: Path, change: dict[str, object], silent: float, free: bool
) -> None:
    held_by(tmp_path, replace(this_process(), **change), silent)
    if free:
        with FolderLock(tmp_path) as mine:
            mine.check()
    else:
        with pytest.raises(LayerlockError, match="in use by"), FolderLock(tmp_path):
            pass


def test_a_holder_elsewhere_comes_with_what_to_do(tmp_path: Path) -> None:
    held_by(tmp_path, replace(this_process(), host="node7", user="alice", command="layerlock pretrain"), 42.0)
    with pytest.raises(LayerlockError) as error, FolderLock(tmp_path):
        pass
    assert "alice on node7" in str(error.value)
    assert "layerlock pretrain" in str(error.value)
    assert f"remove {tmp_path / NAME}" in str(error.value)
    assert "10 minutes" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}', "null"])
def test_a_lock_that_names_nobody_holds_for_a_minute(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(LayerlockError, match=f"remove {tmp_path / NAME}"), FolderLock(tmp_path):
        pass
    then = time.time() - RESTARTED - 30
    os.utime(tmp_path / NAME, (then, then))
    with FolderLock(tmp_path):
        pass


def test_whoever_was_silent_for_too_long_learns_that_the_folder_is_anothers(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as mine:
        held_by(tmp_path, replace(this_process(), host="node7"))
        with pytest.raises(LayerlockError, match=r"taken over by .* on node7"):
            mine.check()
    assert read_holder(tmp_path / NAME).host == "node7", "what is another's is not removed"


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    assert BEAT < RESTARTED / 3
    with FolderLock(tmp_path):
        os.utime(tmp_path / NAME, (1.0, 1.0))
        while (tmp_path / NAME).stat().st_mtime == 1.0:
            time.sleep(0.01)


def test_a_process_that_died_over_a_lock_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LONGEST_TURN", 0.05)
    (tmp_path / TURN).touch()
    with FolderLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_find_a_dead_lock_one_gets_it(tmp_path: Path) -> None:
    held_by(tmp_path, replace(this_process(), pid=2**22 + 1))
    script = HOLD.replace("time.sleep(600)", "sys.stdin.read()")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], text=True, **pipes) for _ in range(4)]
    while sum(process.poll() is None for process in processes) > 1:
        time.sleep(0.02)
    told = [process.communicate()[1] for process in processes]
    assert sum("in use by" in text for text in told) == 3
    assert told.count("") == 1


def test_folders_that_stay_empty_are_removed_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no data"), FolderLock(tmp_path / "a" / "b"):
        raise RuntimeError("no data")
    assert list(tmp_path.iterdir()) == []
    with FolderLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "config.json").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["config.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LayerlockError, match="file"), FolderLock(tmp_path / "file" / "run"):
        pass


def test_who_holds_it_is_one_line_whatever_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "a\nb\x1b[31m" + "c" * 500])

    def nobody() -> str:
        raise KeyError("no such user")

    monkeypatch.setattr(holder.getpass, "getuser", nobody)
    words = this_process().words
    assert words.isprintable()
    assert len(words) < 400
    assert f"user {os.getuid()}" in words


def test_a_fork_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FORK = """
import os, sys, warnings
from pathlib import Path
from layerlock.lock import NAME, FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.__enter__()
child = os.fork()
if child == 0:
    lock.__exit__(None, None, None)
    os._exit(0)
os.waitpid(child, 0)
lock.check()
assert (Path(sys.argv[1]) / NAME).exists()
lock.__exit__(None, None, None)
assert not (Path(sys.argv[1]) / NAME).exists()
"""
