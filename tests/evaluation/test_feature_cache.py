from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerlock.evaluation.feature_cache import Array


def test_two_that_are_made_at_once_do_not_write_into_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.arange(12.0).view(6, 2)
    slow = Array(tmp_path / "a", 6)
    slow.put(0, x[:3])
    monkeypatch.setattr(os, "getpid", lambda: 1)
    fast = Array(tmp_path / "a", 6)
    fast.put(0, x)
    assert not slow.done
    fast.finish({"b.mp4": "broken"})
    slow.put(3, x[3:])
    slow.finish({})
    for array in (slow, fast, Array(tmp_path / "a", 6)):
        assert array.done
        assert array.lost() == {"b.mp4": "broken"}
        assert torch.equal(array.take([5, 0, 3]), x[[5, 0, 3]])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"a.{dead.pid}.part", f"a.{os.getppid()}.part", f"b.{dead.pid}.part"):
        (tmp_path / name).mkdir()
    array = Array(tmp_path / "a", 2)
    array.put(0, torch.ones(2, 3))
    array.finish({})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a", f"a.{os.getppid()}.part", f"b.{dead.pid}.part"]
    )
