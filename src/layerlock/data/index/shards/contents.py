"""What is in a shard, from the headers of the tar file: videos, and what the json beside each says.

The members `KEY.mp4`, `KEY.json`, `KEY.txt` belong together: a key is a member's name up to the first dot of its last
part, as in WebDataset. Nothing is unpacked.
"""

from __future__ import annotations

import json
import math
import os
import tarfile
from dataclasses import dataclass, field
from typing import Any

from layerlock.data.decode.span import RangeFile, Span
from layerlock.data.decode.video import SENS, has_video_ending

Cell = int | float | str

_LONGEST_JSON = 1 << 20
"""bytes; nobody puts more beside a video"""

_LONGEST_TEXT = 256
"""letters of a value that may be a class: longer ones are captions and addresses"""


@dataclass(kw_only=True)
class Packed:
    """A video in a shard."""

    name: str
    """of the member"""
    span: Span
    fields: dict[str, Cell] = field(default_factory=dict)
    """numbers and short texts of its json, by name"""


@dataclass(kw_only=True)
class Contents:
    """A shard's videos, in its order, and (name, reason) of what cannot be used; the name is empty for the shard."""

    videos: list[Packed] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def read_contents(shard: str, size: int) -> Contents:
    """What is in a tar file of `size` bytes: whatever stands before damage, if there is any. Raises OSError where it
    cannot be read at all.
    """
    contents, keys = Contents(), _Keys()
    file = RangeFile(shard, 0, size, shard)
    end = 0
    try:
        with tarfile.TarFile(fileobj=file, mode="r") as tar:  # type: ignore[arg-type]  # read, seek and tell suffice
            while (member := tar.next()) is not None and tar.offset > end:
                tar.members.clear()  # type: ignore[attr-defined]  # memory does not grow with the shard
                end = tar.offset
                _take(contents, keys, file, member, shard)
        file.seek(end)
        damaged = any(file.read(tarfile.BLOCKSIZE))
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):  # numbers and texts of damaged headers
        damaged = True
    if damaged:
        reason = f"it is damaged at byte {min(end, size):,}; what follows is left out" if end else "it is no tar file"
        contents.rejected.append(("", reason))
    contents.rejected += [(name, "no video that can be used belongs to it") for name, _ in keys.waiting.values()]
    return contents


class _Keys:
    """What was seen of each key: its video, or the json that came before it."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.video: dict[str, Packed] = {}
        self.waiting: dict[str, tuple[str, dict[str, Cell]]] = {}


def _take(contents: Contents, keys: _Keys, file: RangeFile, member: tarfile.TarInfo, shard: str) -> None:
    name = member.name.removeprefix("./")
    parts = name.split("/")
    if member.isdir() or parts[-1].startswith("."):
        return
    key = "/".join([*parts[:-1], parts[-1].partition(".")[0]])
    ending = os.path.splitext(name)[1].lower()
    is_video = has_video_ending(name) and ending != f".{SENS}"
    reason = _refused(member, parts, name in keys.names)
    if not reason and member.offset_data + member.size > file.size:
        reason = "the shard ends in the middle of it"
    if not reason and is_video and key in keys.video:
        reason = f"it is left out: {keys.video[key].name} has the same key"
    said = keys.waiting.pop(key, ("", {}))[1] if is_video else {}
    if reason:
        contents.rejected.append((name, reason))
        return
    keys.names.add(name)
    span = Span(shard, member.offset_data, member.size)
    if is_video:
        keys.video[key] = Packed(name=name, span=span, fields=said)
        contents.videos.append(keys.video[key])
    elif ending in (".json", ".cls"):
        fields = _fields(contents, file, name, span, ending)
        if key in keys.video:
            keys.video[key].fields |= fields | keys.video[key].fields
        else:
            before = keys.waiting.get(key, (name, {}))[1]
            keys.waiting[key] = (name, fields | before)


def _refused(member: tarfile.TarInfo, parts: list[str], again: bool) -> str:
    if parts[0] == "" or ".." in parts or "\0" in member.name:
        return "its name leads out of the shard"
    if not member.isreg() or member.issparse():
        return "it is a link or a device, not a file"
    return "it is in the shard twice; the first is used" if again else ""


def _fields(contents: Contents, file: RangeFile, name: str, span: Span, ending: str) -> dict[str, Cell]:
    """What a .json says, or the class in a .cls as `label`. One that is damaged is named; its video is used."""
    try:
        if span.bytes > _LONGEST_JSON:
            raise ValueError(f"it has {span.bytes:,} bytes")
        file.seek(span.begin)
        text = file.read(span.bytes).decode()
        values: Any = {"label": text.strip()} if ending == ".cls" else json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:  # of bytes that are no text and of json that is none as well
        contents.rejected.append((name, f"it cannot be read, its video is used without it: {error}"))
        return {}
    return {name: value for name, value in values.items() if _is_cell(value)}


def _is_cell(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
