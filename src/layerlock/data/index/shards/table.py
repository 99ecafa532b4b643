"""The index of all shards of a data set as one file that is mapped into memory, whatever their number.

It is a safetensors file with an array for each property: of video n `begin[n]` is its place in its shard, and its name
ends at `end[n]` in `text`. What few videos have (gaps, uneven times, rotations) stands behind the name as json.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from layerlock.data.decode.span import Span
from layerlock.data.decode.video import VideoInfo
from layerlock.data.remote import fetch
from layerlock.data.targets import Column, ColumnKind
from layerlock.errors import LayerlockError
from layerlock.files import write_whole

VERSION = 1

COLUMNS = {"end": "U64", "begin": "U64", "bytes": "U64", "fps": "F64", "frames": "U32", "width": "U32", "height": "U32"}
"""of every video, as safetensors calls the types; `codec` is a number for a name"""

TYPES = {"U64": "<u8", "F64": "<f8", "U32": "<u4", "I32": "<i4", "U8": "|u1"}

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(VideoInfo)}

T = TypeVar("T")


class DamagedTable(Exception):
    """A file that holds no table."""


class Table:
    """A mapped file, which is a copy of that at `url` if there is one. Raises OSError where it cannot be read, and
    DamagedTable.
    """

    def __init__(self, path: Path, url: str = "") -> None:
        self.path, self.url = path, url
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > size:
                    raise ValueError
                header = json.loads(file.read(length))
            self.about: dict[str, Any] = json.loads(header.pop("__metadata__")["layerlock"])
            if self.about["version"] != VERSION:
                raise ValueError
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)  # a video needs a few pages, not those beside them
            memory = np.frombuffer(mapped, np.uint8)
            self.arrays = {name: _array(memory, 8 + length, **about) for name, about in header.items()}
            self.shards: list[tuple[str, int]] = [(name, size) for name, size, _ in self.about["shards"]]
            """names, and sizes in bytes"""
            self.firsts: list[int] = [first for _, _, first in self.about["shards"]]
            if any(len(self.arrays[name]) != len(self) for name in COLUMNS):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DamagedTable(str(path)) from None

    def __len__(self) -> int:
        return int(self.about["videos"])

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[Path, str, str]]:
        return _opened_again, (self.path, self.url, self.digest)

    @property
    def digest(self) -> str:
        """Of all that is known of the videos, wherever they are."""
        return str(self.about["digest"])

    @property
    def rejected(self) -> list[list[str]]:
        """[path below the root, reason] of what cannot be used."""
        return list(json.loads(self.arrays["rejected"].tobytes()))

    def kind(self, target: str) -> ColumnKind | None:
        """What the values of a target are; None where there is no such target."""
        if target not in self.about["targets"]:
            return None
        return "float" if self.about["targets"][target] is None else "class"

    def name_and_more(self, row: int) -> tuple[str, dict[str, Any]]:
        """The name of a video in its shard, and properties that few videos have."""
        end = self.arrays["end"]
        text = (
            self.arrays["text"][int(end[row - 1]) if row else 0 : int(end[row])]
            .tobytes()
            .decode(errors="surrogateescape")
        )
        name, _, more = text.partition("\0")
        return name, json.loads(more) if more else {}

    def video(self, row: int, place: Callable[[str], str]) -> VideoInfo:
        """What is known of a video; `place` gives the path or URL of a shard by its name."""
        name, more = self.name_and_more(row)
        more.pop("group", None)
        shard = place(self.shards[bisect_right(self.firsts, row) - 1][0])
        begin, size, frames, width, height = (
            int(self.arrays[column][row]) for column in ("begin", "bytes", "frames", "width", "height")
        )
        fps = float(self.arrays["fps"][row])
        facts: dict[str, Any] = {"seconds": frames / fps, "rotation": 0, **more}
        facts |= {key: tuple(facts[key]) for key in ("missing", "times") if key in facts}
        return VideoInfo(
            path=os.path.join(shard, name),
            frames=frames,
            fps=fps,
            width=width,
            height=height,
            codec=self.about["codecs"][self.arrays["codec"][row]],
            bytes=size,
            span=Span(shard, begin, size),
            **facts,
        )


def _opened_again(path: Path, url: str, digest: str) -> Table:
    """The same table in another process, perhaps of a machine that has no copy yet."""
    try:
        if url and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda part: fetch(url, part))
        table = Table(path, url)
    except (OSError, DamagedTable) as error:
        raise LayerlockError(f"{path}: the index of the shards cannot be read by all processes ({error})") from None
    if table.digest != digest:
        raise LayerlockError(f"{path}: the shards were indexed anew meanwhile, and are others now")
    return table


def create_table(
    path: Path, about: Mapping[str, Any], types: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """A new file with an array of each type and number of values, mapped into memory to be filled. Raises OSError."""
    layout, at = {}, 0
    for name, kind in sorted(types.items(), key=lambda pair: -np.dtype(TYPES[pair[1]]).itemsize):  # all are aligned
        size = counts[name] * np.dtype(TYPES[kind]).itemsize
        layout[name] = {"dtype": kind, "shape": [counts[name]], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps({"__metadata__": {"layerlock": json.dumps(about)}, **layout}).encode()
    head += b" " * (-len(head) % 8)
    base = 8 + len(head)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(base + at)
    memory = np.memmap(path, np.uint8, mode="r+")
    return {name: _array(memory, base, **values) for name, values in layout.items()}  # type: ignore[arg-type]


def text_of(name: str, video: VideoInfo, group: str) -> bytes:
    """What `name_and_more` reads."""
    usual: dict[str, Any] = {**_DEFAULTS, "seconds": video.frames / video.fps, "rotation": 0}
    names = ("seconds", "rotation", "mirrored", "seekable", "zero", "missing", "times")
    more: dict[str, Any] = {key: getattr(video, key) for key in names if getattr(video, key) != usual[key]}
    if group:
        more["group"] = group
    return (f"{name}\0{json.dumps(more)}" if more else name).encode(errors="surrogateescape")


def _array(memory: np.ndarray, base: int, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> np.ndarray:
    begin, end = data_offsets
    array = memory[base + begin : base + end].view(TYPES[dtype])
    if list(shape) != [len(array)]:
        raise ValueError
    return array


class _Lazy(Sequence[T]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def item(self, row: int) -> T:
        """The item of a video."""
        raise NotImplementedError

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[T, ...]: ...
    def __getitem__(self, row: int | slice) -> T | tuple[T, ...]:
        if isinstance(row, slice):
            return tuple(map(self.item, range(len(self))[row]))
        return self.item(range(len(self))[row])

    def __iter__(self) -> Iterator[T]:
        return map(self.item, range(len(self)))


class Videos(_Lazy[VideoInfo]):
    """The videos of the shards of a data set; `place` gives the path or URL of a shard by its name."""

    def __init__(self, table: Table, place: Callable[[str], str]) -> None:
        super().__init__(table)
        self.place = place

    def item(self, row: int) -> VideoInfo:
        return self.table.video(row, self.place)


class Groups(_Lazy[str]):
    """What each video belongs to, empty where nothing says so."""

    def item(self, row: int) -> str:
        return str(self.table.name_and_more(row)[1].get("group", ""))


class Values(_Lazy[float]):
    """The values of a target."""

    def __init__(self, table: Table, name: str) -> None:
        super().__init__(table)
        self.name = name

    @cached_property
    def _array(self) -> np.ndarray:
        return self.table.arrays[f"target.{self.name}"]

    def item(self, row: int) -> float:
        return self._array[row].item()

    def __repr__(self) -> str:
        return hashlib.blake2b(self._array.data, digest_size=8).hexdigest()  # a fingerprint is made of it

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "name": self.name}


def targets_of(table: Table) -> Mapping[str, Column]:
    """The targets of the videos of a table."""
    return {
        name: Column(values=Values(table, name), classes=None if classes is None else tuple(classes))
        for name, classes in table.about["targets"].items()
    }
