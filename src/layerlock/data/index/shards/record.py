"""What is known of one shard, in a json file: each video's place in it, what it is, and the numbers of its json."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from layerlock.data.decode.span import Span
from layerlock.data.decode.video import VideoInfo
from layerlock.data.index.record import values_of, video_of
from layerlock.data.index.shards.contents import Cell
from layerlock.files import write_whole

VERSION = 1
ENDING = "_index.json"


class Known(NamedTuple):
    """A video of a shard."""

    name: str
    """in the shard"""
    video: VideoInfo
    fields: dict[str, Cell]
    """of the json beside it"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a shard holds."""

    videos: tuple[Known, ...]
    rejected: tuple[tuple[str, str], ...]
    """(name in the shard, reason); the name is empty for the shard itself"""
    digest: bytes
    """of all this"""


def record_path(folder: Path, shard: str) -> Path:
    """Where the record of a shard lies in a folder."""
    return folder / f"{shard.removesuffix('.tar').replace('/', '+')}{ENDING}"


def write_record(
    path: Path, shard: str, size: int, videos: Sequence[Known], rejected: Sequence[tuple[str, str]]
) -> None:
    """Writes what is known of a shard, by its name, of `size` bytes. Raises OSError."""
    rows = [
        {"name": name, "begin": video.span.begin, **values_of(video), "fields": fields}
        for name, video, fields in videos
        if video.span
    ]
    values = {"version": VERSION, "shard": shard, "bytes": size, "videos": rows, "rejected": rejected}
    write_whole(path, lambda part: part.write_text(json.dumps(values) + "\n"))


def read_record(path: Path, shard: str, place: str, size: int) -> Record | None:
    """What is known of a shard at a place; None where there is no such file, or that of another shard or size."""
    try:
        text = path.read_bytes()
        values = json.loads(text)
        if (values["version"], values["shard"], values["bytes"]) != (VERSION, shard, size):
            return None
        videos = tuple(_video(place, **row) for row in values["videos"])
        rejected = tuple((str(name), str(reason)) for name, reason in values["rejected"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return Record(videos=videos, rejected=rejected, digest=digest)


def _video(shard: str, name: str, begin: int, fields: dict[str, Cell], **values: Any) -> Known:
    """Raises ValueError, TypeError or KeyError where the values are not those of a video."""
    if not isinstance(name, str) or type(begin) is not int or begin < 0 or not isinstance(fields, dict):
        raise TypeError
    video = video_of(os.path.join(shard, name), values)
    return Known(name, replace(video, span=Span(shard, begin, video.bytes)), fields)
