"""What was found out about videos, kept in the user's cache folder: a file of JSON lines for each data set.

A line is appended as soon as it is known, so that nothing is lost when a run ends early, and of two lines for a video
the later one holds. Whatever in a file is no such line, or comes from another version of the probe, counts as absent.
Where the folder cannot be used nothing is kept, and nothing is said.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NamedTuple

from layerlock.data.decode.images import folder_of, leads_to_folder
from layerlock.data.decode.video import IMAGES, VideoInfo
from layerlock.data.index.record import values_of, video_of
from layerlock.files import write_whole


@cache
def probe_version() -> str:
    """What finds out the entries; the first number is to be raised when `probe` finds out something else."""
    return f"4 av {version('av')}"


class Stamp(NamedTuple):
    """By what a changed video is told: its size, and when its content and its status changed, in nanoseconds."""

    size: int
    modified: int
    changed: int
    folder: bool


def stamp_of(path: str) -> Stamp:
    """The stamp of a file, or of a folder of frames with the folders in it. Raises OSError."""
    path = folder_of(path)
    status = os.stat(path)
    folder = stat.S_ISDIR(status.st_mode)
    inside = []
    if folder:
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries if leads_to_folder(entry)]
    size, modified, changed = map(max, *((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (status, status, *inside)))
    return Stamp(size, modified, changed, folder)


def file_of(video: VideoInfo) -> str:
    """The file that a video is in: its own, or a shard."""
    return video.span.shard if video.span else video.path


def state_of(path: str) -> str:
    """The stamp of a file or a folder of frames as text, another one when it was changed; empty where there is none."""
    try:
        return repr(stamp_of(path))
    except OSError:
        return ""


def contents_of(path: str) -> str:
    """As `state_of`, of every file in a folder too: another text when a picture was overwritten in its place."""
    total = hashlib.blake2b(state_of(path).encode(), digest_size=8)
    for folder, folders, files in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)
            total.update(f"{os.path.relpath(file, path)} {state_of(file)}".encode(errors="surrogateescape"))
    return total.hexdigest()


class IndexCache:
    """What is known about the videos of the data set at an absolute path; None is a cache that keeps nothing."""

    def __init__(self, data: str | None) -> None:
        self._entries: dict[str, tuple[Stamp, VideoInfo | str]] = {}
        self._lines = 0
        self._torn = False
        self._file: BinaryIO | None = None
        if data is not None:
            with suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
                self._open(cache_folder() / "index" / f"{_digest(data)}.jsonl")

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)
        with suppress(OSError):  # held by all who append, so that none of them loses its file to `tidy`
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with path.open("rb") as lines:
            for line in lines:
                self._lines += 1
                self._torn = not line.endswith(b"\n")
                entry = _parsed(line)
                if entry:
                    self._entries[entry[0]] = entry[1:]

    def get(self, path: str, stamp: Stamp) -> VideoInfo | str | None:
        """What is known about a video with this stamp: what is in it, or why it cannot be used. None is nothing."""
        before, verdict = self._entries.get(path, (None, None))
        return verdict if before == stamp else None

    def add(self, path: str, stamp: Stamp, verdict: VideoInfo | str) -> None:
        """Keeps what was found out about a video that had this stamp before it was probed."""
        self._entries[path] = (stamp, verdict)
        if self._file is None:
            return
        try:
            line = b"\n" * self._torn + _line(path, stamp, verdict)
            self._torn = self._file.write(line) < len(line)
            self._lines += 1
        except OSError:
            self.close()

    def tidy(self, paths: Collection[str]) -> None:
        """Rewrites the file if more than half of it is no longer of use; nothing may be added afterwards.

        `paths` are all videos of the data set.
        """
        live = [path for path in paths if path in self._entries]
        if self._file is None or self._lines <= 2 * len(live):
            return
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else is at it
            if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
                write_whole(self._path, lambda part: self._write(part, live))

    def _write(self, part: Path, paths: Collection[str]) -> None:
        with part.open("wb") as file:
            file.writelines(_line(path, *self._entries[path]) for path in paths)

    def close(self) -> None:
        """Lets go of the file; from then on nothing is kept."""
        if self._file is not None:
            self._file.close()
            self._file = None


def cache_folder() -> Path:
    """`LAYERLOCK_CACHE`, else `layerlock` in XDG_CACHE_HOME or ~/.cache. Raises RuntimeError without a home folder."""
    if own := os.environ.get("LAYERLOCK_CACHE"):
        return Path(own).expanduser()
    common = os.environ.get("XDG_CACHE_HOME")
    return (Path(common) if common else Path.home() / ".cache") / "layerlock"


def _digest(data: str) -> str:
    return hashlib.blake2b(os.fsencode(data), digest_size=16).hexdigest()


def _line(path: str, stamp: Stamp, verdict: VideoInfo | str) -> bytes:
    told = {"reason": verdict} if isinstance(verdict, str) else {"video": values_of(verdict)}
    return json.dumps({"path": path, "stamp": stamp, "probe": probe_version(), **told}).encode() + b"\n"


def _parsed(line: bytes) -> tuple[str, Stamp, VideoInfo | str] | None:
    """The path, stamp and finding of a line; None where it holds no such thing."""
    try:
        entry = json.loads(line)
        if entry["probe"] != probe_version():
            return None
        stamp = Stamp(*entry["stamp"])
        verdict = entry["reason"] if "reason" in entry else video_of(entry["path"], entry["video"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    whole = isinstance(verdict, str) or (isinstance(verdict, VideoInfo) and (verdict.codec == IMAGES) == stamp.folder)
    return (entry["path"], stamp, verdict) if whole and isinstance(entry["path"], str) else None
