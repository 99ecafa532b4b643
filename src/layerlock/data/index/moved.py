"""A data set that was moved or copied: the same videos in another place, told by their names, sizes and contents.

Names are those below the data set's root, or absolute where a list gives them so. Contents are compared of some videos,
spread over the data set, since reading all of it could take hours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from layerlock.data.decode.video import VideoInfo
from layerlock.data.index.build import Index
from layerlock.data.index.layouts import list_videos
from layerlock.data.index.listing import printable
from layerlock.errors import LayerlockError

SAMPLED = 64
"""videos whose contents are compared"""
WHOLE, PIECE = 2**20, 2**18
"""bytes of a file that is read whole, at most; of larger ones the first, the middle and the last so many"""


def place_of(data: str, root: str | None) -> list[str | None]:
    """Where a data set is, links followed: its own path and, of a list that stands elsewhere, that of its videos."""
    return [os.path.realpath(data), None if root is None else os.path.realpath(root)]


def contents(videos: Sequence[VideoInfo]) -> list[list[Any]]:
    """Positions and digests of some videos; of a folder of pictures, of its first one."""
    step = max(1, -(-len(videos) // SAMPLED))
    return [[n, digest] for n in range(0, len(videos), step) if (digest := _digest(videos[n].path))]


def found_again(
    index: Index, was_at: str, digests: Sequence[Sequence[Any]], data: str, root: str | None, advice: str
) -> Index:
    """An index whose data set was at the root `was_at`, with the paths that its videos have in `data` now.

    Raises LayerlockError, ending in `advice`, where they are not the same videos in the same order.
    """
    listing = list_videos(data, root)
    known = {_name(path, index.root) for path, _ in index.rejected}
    known |= {path for path, _ in index.rejected}
    paths = [path for path in listing.paths if _name(path, listing.root) not in known and path not in known]
    where = printable(os.path.abspath(data))
    if len(paths) != len(index.videos):
        raise LayerlockError(f"{where}: {len(paths):,} videos; this run was trained on {len(index.videos):,}; {advice}")
    moved = [
        _same(video, path, (index.root, listing.root, was_at), where, advice)
        for video, path in zip(index.videos, paths, strict=True)
    ]
    for position, digest in digests:
        if _digest(moved[position].path) != digest:
            raise LayerlockError(
                f"{printable(moved[position].path)}: this run was trained on other contents of it; {advice}"
            )
    below = all(
        _name(v.path, index.root) == _name(m.path, listing.root) for v, m in zip(index.videos, moved, strict=True)
    )
    now = listing.root if below else was_at
    rejected = tuple((_moved(path, index.root, now), reason) for path, reason in index.rejected)
    return replace(index, root=now, videos=tuple(moved), rejected=rejected)


def _same(video: VideoInfo, path: str, roots: tuple[str, str, str], where: str, advice: str) -> VideoInfo:
    """A video at its new path. `roots` are that of the index, of the data as they are listed now, and as they were."""
    own, now, was = roots
    name = _name(video.path, own)
    if name != _name(path, now) and path != _moved(video.path, own, was):
        raise LayerlockError(
            f"{where}: {printable(_name(path, now))} where this run was trained on {printable(name)}; {advice}"
        )
    try:
        size = 0 if os.path.isdir(path) else os.path.getsize(path)
    except OSError as error:
        raise LayerlockError(f"{printable(path)}: it cannot be opened ({error.strerror}); {advice}") from None
    if size != video.bytes:
        raise LayerlockError(
            f"{printable(path)}: {size:,} bytes; this run was trained on {video.bytes:,} bytes; {advice}"
        )
    return replace(video, path=path)


def _name(path: str, root: str) -> str:
    return path.removeprefix(os.path.join(root, ""))


def _moved(path: str, root: str, now: str) -> str:
    return os.path.join(now, _name(path, root))


def _digest(path: str) -> str:
    """Of a file, or of the first picture of a folder; empty where there is none."""
    try:
        if os.path.isdir(path):
            first = min((os.path.join(at, name) for at, _, names in os.walk(path) for name in names), default="")
            return _digest(first) if first else ""
        with open(path, "rb") as file:
            return hashlib.blake2b(b"".join(_pieces(file, os.path.getsize(path))), digest_size=8).hexdigest()
    except OSError:
        return ""


def _pieces(file: BinaryIO, size: int) -> list[bytes]:
    if size <= WHOLE:
        return [file.read()]
    pieces = []
    for start in (0, (size - PIECE) // 2, size - PIECE):
        file.seek(start)
        pieces.append(file.read(PIECE))
    return pieces
