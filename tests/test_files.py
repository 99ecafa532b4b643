"""Files that are whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerlock.files import is_part, write_whole
from layerlock.lock import FolderLock

KILLED = """
import os, signal, sys
from pathlib import Path
from layerlock.files import write_whole
def half(part):
    part.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), half)
"""


def test_each_of_two_writers_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    between = []

    def slow(part: Path) -> None:
        part.write_text("first ")
        write_whole(path, lambda other: other.write_text("the second's"))
        between.append(path.read_text())
        with part.open("a") as file:
            file.write("and last")

    write_whole(path, slow)
    assert (between, path.read_text()) == (["the second's"], "first and last")
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fails(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, fails)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])


def test_what_a_killed_writer_left_goes_with_the_next_lock(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    for path in (tmp_path / "a.json", tmp_path / "encoder" / "b.safetensors"):
        path.write_text("before")
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=os.environ, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert path.read_text() == "before"
    (tmp_path / "mine.part").write_text("not one of them")
    assert sum(is_part(path.name) for path in tmp_path.rglob("*")) == 2
    with FolderLock(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "b.safetensors", "encoder", "mine.part"]
