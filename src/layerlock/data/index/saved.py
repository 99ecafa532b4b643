"""An index as a file of its own, which stays true when the data set is moved."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerlock.data.decode.video import VideoInfo
from layerlock.data.index.build import Index
from layerlock.data.index.listing import printable
from layerlock.data.index.moved import contents, found_again, place_of
from layerlock.data.index.record import values_of, video_of
from layerlock.data.index.shards.table import Videos
from layerlock.data.targets import Column
from layerlock.errors import LayerlockError
from layerlock.files import write_whole

MOVED = "resume on the data that the run was trained on, wherever they are now, or begin a new run with --init-from"


def save_index(index: Index, data: str, path: Path, root: str | None = None) -> None:
    """Writes the index of `data` as json. Paths below its root are kept relative to it, others absolute. `root` is what
    was given for a list that stands elsewhere.

    Raises OSError.
    """
    if isinstance(index.videos, Videos):  # their index is a file of its own
        shards = {"shards": index.videos.table.digest}
        write_whole(path, lambda part: part.write_text(json.dumps(shards) + "\n"))
        return
    below = os.path.join(index.root, "")
    values = {
        "place": place_of(data, root),
        "was_at": index.root,
        "root": os.path.relpath(index.root, os.path.abspath(data)),
        "layout": index.layout,
        "videos": [{"path": video.path.removeprefix(below), **values_of(video)} for video in index.videos],
        "targets": {
            name: {"values": [None if math.isnan(x) else x for x in column.values], "classes": column.classes}
            for name, column in index.targets.items()
        },
        "groups": index.groups,
        "rejected": [(name.removeprefix(below), reason) for name, reason in index.rejected],
        "contents": contents(index.videos),
    }
    write_whole(path, lambda part: part.write_text(json.dumps(values) + "\n"))


def load_index(path: Path, data: str, root: str | None = None) -> Index:
    """The index in a file of `save_index`, with the paths that its videos have now.

    Where `data` are in their old place nothing is looked at. In another place they have to be the same videos by name,
    size and content; shards have to have the same index in any place. Raises LayerlockError where they are not, and
    where the file cannot be read or is damaged.
    """
    try:
        values = json.loads(path.read_bytes())
        if "shards" in values:
            return _shards(str(values["shards"]), data, root)
        place, was_at = values["place"], values["was_at"]
        own = os.path.normpath(os.path.join(os.path.abspath(data), values["root"]))
        index = _index(values, own if root is None else os.path.abspath(root))
        digests = [(_position(n, index), digest) for n, digest in values["contents"]]
        if not isinstance(was_at, str) or not isinstance(place, list):
            raise TypeError
    except OSError as error:
        raise LayerlockError(f"{printable(str(path))}: it cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise LayerlockError(f"{printable(str(path))}: it is damaged: it holds no index") from None
    if place == place_of(data, root):
        return index
    return found_again(index, was_at, digests, data, root, MOVED)


def _shards(digest: str, data: str, root: str | None) -> Index:
    from layerlock.data.index.shards.build import build_shards, saved_shards

    index = saved_shards(data, root, digest) or build_shards(data, root=root)
    if not isinstance(index.videos, Videos) or index.videos.table.digest != digest:
        raise LayerlockError(f"{printable(data)}: the shards hold other videos than the run was trained on; {MOVED}")
    return index


def _position(number: Any, index: Index) -> int:
    if type(number) is not int or not 0 <= number < len(index):
        raise ValueError
    return number


def _index(values: Mapping[str, Any], root: str) -> Index:
    """Raises ValueError, TypeError or KeyError where the values are not those of an index."""
    videos = tuple(_video(root, **video) for video in values["videos"])
    targets, groups = (
        {name: _column(**column) for name, column in dict(values["targets"]).items()},
        tuple(values["groups"]),
    )
    rejected = tuple((os.path.join(root, name), reason) for name, reason in values["rejected"])
    if not all(isinstance(text, str) for text in (values["layout"], *groups, *(reason for _, reason in rejected))):
        raise TypeError
    if any(len(column.values) != len(videos) for column in targets.values()):
        raise ValueError
    if groups and len(groups) != len(videos):
        raise ValueError
    return Index(
        root=root,
        layout=values["layout"],
        videos=videos,
        targets=targets,
        groups=groups,
        rejected=rejected,
    )


def _column(values: list[Any], classes: list[Any] | None) -> Column:
    if classes is None:
        numbers = [math.nan if x is None else x for x in values]
        if not all(type(x) is float for x in numbers):
            raise TypeError
        return Column(values=tuple(numbers))
    if not all(isinstance(name, str) for name in classes):
        raise TypeError
    if not all(type(n) is int and -1 <= n < len(classes) for n in values):
        raise ValueError
    return Column(values=tuple(values), classes=tuple(classes))


def _video(root: str, path: str, **values: Any) -> VideoInfo:
    return video_of(os.path.join(root, path), values)
