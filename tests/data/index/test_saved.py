"""An index as a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from layerlock.data.decode.video import VideoInfo
from layerlock.data.index import Index
from layerlock.data.index.saved import load_index, save_index
from layerlock.data.targets import Column
from layerlock.errors import LayerlockError

KINDS: dict[str, Any] = get_type_hints(VideoInfo)
VALUES: dict[Any, Any] = {
    str: "x",
    int: 2,
    float: 30000 / 1001,
    bool: False,
    tuple[int, ...]: (3, 9),
    tuple[str, ...]: ("thumbnail.jpg",),
    tuple[float, ...]: (0.0, 30000 / 1001),
}
INFO = VideoInfo(**{name: VALUES[kind] for name, kind in KINDS.items() if name != "span"})


def index_of(root: str) -> Index:
    """An index with paths below its root, which has odd names, and elsewhere."""
    paths = [f"{root}/a.mp4", f"{root}/sub/new\nline \udce9.mp4", f"{root}er/b.mp4", "/elsewhere/c.mp4"]
    return Index(
        root=root,
        layout="list of paths and labels",
        videos=tuple(replace(INFO, path=path) for path in paths),
        targets={
            "label": Column(values=(0, -1, 1, 1), classes=("ant", "b\nee")),
            "speed": Column(values=(0.5, math.nan, -1.0, 1e9)),
        },
        rejected=((f"{root}/bad\x1b.mp4", "it is empty"), (root, "the folder cannot be searched")),
    )


@pytest.mark.parametrize("root", ["/data/set", "/da\udce9\nta"])
@pytest.mark.parametrize("below", ["", "/", "/list.csv", "/lists/list.json"])
def test_an_index_comes_back_as_it_was(tmp_path: Path, root: str, below: str) -> None:
    data = root + below
    save_index(index_of(root), data, tmp_path / "index.json")
    assert load_index(tmp_path / "index.json", data) == index_of(root)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"root": None},
        {"place": 3},
        {"was_at": None},
        {"contents": [[4, "00"]]},
        {"contents": [["0", "00"]]},
        {"contents": 3},
        {"layout": 3},
        {"videos": [{"path": "a.mp4"}] * 4},
        {"videos": [3] * 4},
        {"videos": []},
        {"targets": {"label": {"values": [0, -1, 1], "classes": ["a", "b"]}}},
        {"targets": {"label": {"values": [0, -1, 1, 2], "classes": ["a", "b"]}}},
        {"targets": {"label": {"values": [0, -1, 1, 1.0], "classes": ["a", "b"]}}},
        {"targets": {"label": {"values": [0, -1, 1, 1], "classes": [1, 2]}}},
        {"targets": {"speed": {"values": [0.5, None, 1.0, "2"], "classes": None}}},
        {"targets": {"speed": {"values": [0.5, None, 1.0, 2.0]}}},
        {"targets": [0, -1, 1, 1]},
        {"rejected": [["a"]]},
        {"rejected": [["a", None]]},
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "index.json"
    save_index(index_of("/data"), "/data", path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LayerlockError, match=r"index\.json: it is damaged"):
        load_index(path, "/data")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_index_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(LayerlockError, match=r"index\.json: it is damaged"):
        load_index(tmp_path / "index.json", "/data")
    with pytest.raises(LayerlockError, match=r"gone\.json: it cannot be read \(No such file"):
        load_index(tmp_path / "gone.json", "/data")


@pytest.mark.parametrize(
    "change",
    [
        {"width": -1},
        {"height": 0},
        {"frames": 0},
        {"frames": True},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"seconds": -0.1},
        {"seconds": float("nan")},
        {"rotation": 4},
        {"rotation": -1},
        {"codec": None},
        {"more": 1},
    ],
)
def test_videos_that_cannot_be_are_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "index.json"
    save_index(index_of("/data"), "/data", path)
    values = json.loads(path.read_text())
    values["videos"][2] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(LayerlockError, match="damaged"):
        load_index(path, "/data")
