"""Which files of a folder are usable videos, found out by decoding the start of each in a pool of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerlock.data.decode import UnreadableVideo, VideoInfo, probe
from layerlock.data.pool import Failure, run_in_processes
from layerlock.errors import LayerlockError

EXTENSIONS = frozenset(
    f".{ending}"
    for line in (
        "3gp asf avi divx f4v flv gif m2ts m4v mkv mov",
        "mp4 mpeg mpg mts mxf ogv ts vob webm wmv",
    )
    for ending in line.split()
)
"""lower-case endings of the files that are taken for videos"""

PROBE_SECONDS = 60.0
"""a file whose probe takes longer is rejected"""

_REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Index:
    """What a folder holds."""

    root: str
    videos: tuple[VideoInfo, ...]
    """usable, sorted by path"""
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of files with a video's ending that cannot be used"""

    def __len__(self) -> int:
        return len(self.videos)


def find_videos(root: str | os.PathLike[str]) -> list[str]:
    """Absolute paths of all files below `root` (or `root` itself) that end like a video, sorted; links are followed."""
    top = Path(root)
    if top.is_file():
        return [os.path.abspath(top)]
    if not top.is_dir():
        raise LayerlockError(f"the data folder {top} does not exist")
    return sorted(_walk(os.path.abspath(top), frozenset()))


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    try:
        entries = list(os.scandir(folder))
    except PermissionError:
        return
    for entry in entries:
        try:
            if entry.is_dir():
                yield from _walk(entry.path, above | {here})
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield entry.path
        except OSError:
            continue


def build_index(root: str | os.PathLike[str], workers: int | None = None, paths: Sequence[str] | None = None) -> Index:
    """Probe every video file below `root` in `workers` processes (None: one for each processor).

    `paths` are those of its files that are wanted, as `find_videos` gives them; None is all. Raises LayerlockError when
    the folder is missing, holds no video file, or none that can be decoded.
    """
    paths = find_videos(root) if paths is None else paths
    if not paths:
        raise LayerlockError(
            f"there are no videos in {root}: no file below it has one of the endings {' '.join(sorted(EXTENSIONS))}"
        )
    videos, rejected = [], []
    for path, found in zip(paths, run_in_processes(_probe, paths, workers=workers, seconds=PROBE_SECONDS), strict=True):
        if isinstance(found, VideoInfo):
            videos.append(found)
        else:
            rejected.append((path, f"decoding fails: {found.reason}" if isinstance(found, Failure) else found))
    if not videos:
        raise LayerlockError(_nothing_usable(root, rejected))
    return Index(root=os.path.abspath(root), videos=tuple(videos), rejected=tuple(rejected))


def _probe(path: str) -> VideoInfo | str:
    """What is in the file, or why it cannot be used."""
    try:
        return probe(path)
    except UnreadableVideo as error:
        return error.reason


def _nothing_usable(root: str | os.PathLike[str], rejected: list[tuple[str, str]]) -> str:
    lines = [f"none of the {len(rejected)} video files in {root} can be decoded:"]
    lines += [f"  - {path}: {reason}" for path, reason in rejected[:_REASONS_SHOWN]]
    if len(rejected) > _REASONS_SHOWN:
        lines.append(f"  - and {len(rejected) - _REASONS_SHOWN} more")
    return "\n".join(lines)
