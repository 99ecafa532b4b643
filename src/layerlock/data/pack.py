"""Videos of a data set, made small and written into shards, in the layout of video2dataset.

A shard `00000.tar` holds `000000000.mp4`, `000000000.json`, `000000001.mp4`, ... Beside it are its counts,
`00000_stats.json`, and its record for the index. Which video comes into which shard, and every byte, follow from the
videos and the settings alone, so a call that was interrupted is repeated and goes on after its last whole shard.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerlock.data.decode.span import Span
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.data.index import Index, build_index
from layerlock.data.index.columns import Wanted
from layerlock.data.index.shards.build import PACK, build_shards
from layerlock.data.index.shards.contents import Cell
from layerlock.data.index.shards.merge import GROUP
from layerlock.data.index.shards.record import Known, record_path, write_record
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.transcode import Encoding, transcode
from layerlock.errors import ConfigError, LayerlockError
from layerlock.files import is_part, remove_parts, write_whole
from layerlock.lock import FILES, FolderLock

PACK_SECONDS = 7_200.0
"""a video that takes longer is left out"""

_MOST_VIDEOS = 10_000
"""in a shard: keys have four digits for them"""

_STATS = "_stats.json"

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was packed."""

    out: Path
    shards: int
    videos: int
    bytes: int
    """of the shards"""
    left_out: tuple[tuple[str, str], ...]
    """(path below the data's root, reason)"""


def write_pack(
    data: str,
    out: Path,
    encoding: Encoding,
    *,
    shard_mb: float,
    root: str | None = None,
    targets: Wanted | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Packed:
    """Packs the usable videos of a data set, in its order; each shard is whole once it has `shard_mb` megabytes.

    Raises ConfigError for settings that make no sense, LayerlockError for data or a folder that cannot be used, for one
    that holds a pack of other videos or settings, and for a full disk: nothing that is whole is lost.
    """
    problems = encoding.problems()
    if not 0 < shard_mb < math.inf:
        problems.append(f"shard_mb is {shard_mb}; it has to be above 0")
    if problems:
        raise ConfigError(problems)
    index = build_index(data, workers, root=root, targets=targets)
    about = {
        "version": _VERSION,
        "videos": index.fingerprint,
        "settings": asdict(encoding) | {"shard_mb": shard_mb},
        "targets": {name: column.classes for name, column in index.targets.items()},
        "values": _digest(index),
    }
    _refuse_others(out)  # before the lock, which removes what is half written in its folder
    with FolderLock(out):
        try:
            _claim(out, about)
            pack = _Pack(out, index, encoding, int(shard_mb * 1e6), workers)
            pack.go(progress)
            _note(out, about | pack.told())
        except OSError as error:
            raise _unwritable(out, error) from None
        finally:
            remove_parts(out)
    try:
        packed = build_shards(str(out), workers) if pack.videos else None
    except OSError as error:
        raise _unwritable(out, error) from None
    sizes = [path.stat().st_size for path in out.glob("*.tar")]
    return Packed(
        out=out, shards=len(sizes), videos=len(packed) if packed else 0, bytes=sum(sizes), left_out=tuple(pack.left_out)
    )


def _unwritable(out: Path, error: OSError) -> LayerlockError:
    return LayerlockError(
        f"{out}: it cannot be written ({error.strerror or error}); repeat the command to go on after "
        "the last whole shard"
    )


def _digest(index: Index) -> str:
    """Of the targets and the group of each video."""
    total = hashlib.blake2b(digest_size=8)
    for name, column in sorted(index.targets.items()):
        total.update(f"{name}\0".encode() + np.array(column.values, np.float64).tobytes())
    for group in index.groups:
        total.update(f"{group}\0".encode(errors="surrogateescape"))
    return total.hexdigest()


def _refuse_others(out: Path) -> None:
    """Raises LayerlockError for a folder with files that is no pack; nothing in it is touched."""
    try:
        names = [path.name for path in out.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise LayerlockError(f"{out}: it cannot be read ({error.strerror or error})") from None
    if PACK not in names and any(name not in FILES and not is_part(name) for name in names):
        raise LayerlockError(f"{out} is not empty, and no pack; give a new or an empty folder")


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Makes the folder that of this pack, or checks that it is. Raises LayerlockError, OSError."""
    about = json.loads(json.dumps(about))
    try:
        before = json.loads((out / PACK).read_bytes())
        before = {name: before.get(name) for name in about}
    except FileNotFoundError:
        _note(out, about)
        return
    except (ValueError, AttributeError):
        raise LayerlockError(f"{out / PACK}: it is damaged; give another folder") from None
    different = [name for name in about if before[name] != about[name]]
    if different == ["settings"] and isinstance(before["settings"], dict):
        told = [
            f"{name} {before['settings'].get(name)} there, {value} here"
            for name, value in about["settings"].items()
            if before["settings"].get(name) != value
        ]
        raise LayerlockError(f"{out} holds a pack of other settings ({', '.join(told)}); give another folder")
    if different:
        raise LayerlockError(f"{out} holds a pack of other videos, targets or groups; give another folder")


def _note(out: Path, about: dict[str, Any]) -> None:
    write_whole(out / PACK, lambda part: part.write_text(json.dumps(about, indent=1) + "\n"))


@dataclass(frozen=True)
class _Full:
    """The disk cannot be written: error number and words."""

    number: int
    words: str


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """What a process does: makes a video small, in a file beside the shards."""

    out: Path
    encoding: Encoding

    def __call__(self, video: VideoInfo) -> tuple[Path, VideoInfo] | str | _Full:
        part = self.out / f".{secrets.token_hex(8)}.mp4.part"
        try:
            return part, transcode(video, part, self.encoding)
        except UnreadableVideo as error:
            part.unlink(missing_ok=True)
            return error.reason
        except OSError as error:
            part.unlink(missing_ok=True)
            return _Full(error.errno or errno.EIO, error.strerror or str(error))


class _Pack:
    """A pack being written."""

    def __init__(self, out: Path, index: Index, encoding: Encoding, most: int, workers: int | None) -> None:
        self.out, self.index, self.most, self.workers = out, index, most, workers
        self.maker = _Maker(out=out, encoding=encoding)
        self.done = 0
        """videos that earlier calls have packed or left out"""
        self.shards = 0
        self.videos = 0
        self.left_out: list[tuple[str, str]] = []
        self._read_stats()

    def _read_stats(self) -> None:
        """What earlier calls have written whole: shards one after the other, each with its counts."""
        while (path := self._path(self.shards, _STATS)).exists() and self._path(self.shards, ".tar").exists():
            try:
                stats = json.loads(path.read_bytes())
                self.done += stats["count"]
                self.videos += stats["successes"]
                self.left_out += [(name, reason) for name, reason in stats["left_out"]]
            except (ValueError, TypeError, KeyError):
                raise LayerlockError(f"{path}: it is damaged; remove it to pack this shard again") from None
            self.shards += 1

    def _path(self, shard: int, ending: str) -> Path:
        return self.out / f"{shard:05d}{ending}"

    def go(self, progress: Callable[[int, int], None]) -> None:
        """Writes what is missing. Raises OSError."""
        rows = range(self.done, len(self.index))
        todo = self.index.videos if not self.done else self.index.videos[self.done :]
        made = run_in_processes(self.maker, todo, workers=self.workers, seconds=PACK_SECONDS)
        with closing(made):
            results = self._results(rows, made, progress)
            while self._write_shard(results):
                pass
        self.left_out = [(self._short(path), reason) for path, reason in self.index.rejected] + self.left_out

    def told(self) -> dict[str, Any]:
        """The counts of the whole pack."""
        return {"packed": self.videos, "shards": self.shards, "left_out": self.left_out}

    def _short(self, path: str) -> str:
        return path.removeprefix(os.path.join(self.index.root, ""))

    def _results(
        self, rows: range, made: Generator[Any], progress: Callable[[int, int], None]
    ) -> Iterator[tuple[int, Any]]:
        """Position of each video with the file and what is in it, or with why it is left out. Raises OSError."""
        for row, result in zip(rows, made, strict=True):
            if isinstance(result, _Full):
                raise OSError(result.number, result.words)
            yield row, f"packing fails: {result.reason}" if isinstance(result, Failure) else result
            progress(row + 1, len(self.index))

    def _write_shard(self, results: Iterator[tuple[int, Any]]) -> bool:
        """Writes the next shard; False where there is nothing left for one. Raises OSError."""
        left_out, known = list[tuple[str, str]](), list[Known]()
        usable = self._usable(results, left_out)
        first = next(usable, None)
        if first is None:  # behind the last shard: a later call tries these again
            self.left_out += left_out
            return False
        tar = self._path(self.shards, ".tar")

        def fill(part: Path) -> None:
            with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as file:
                for row, (path, info) in itertools.chain([first], usable):
                    known.append(self._add(file, f"{self.shards:05d}{len(known):04d}", row, path, info))
                    if file.offset >= self.most or len(known) == _MOST_VIDEOS:
                        break

        write_whole(tar, fill)
        write_record(record_path(self.out, tar.name), tar.name, tar.stat().st_size, known, [])
        self.videos += len(known)
        self.left_out += left_out
        self._write_stats(known, left_out)
        self.shards += 1
        return True

    def _usable(
        self, results: Iterator[tuple[int, Any]], left_out: list[tuple[str, str]]
    ) -> Iterator[tuple[int, tuple[Path, VideoInfo]]]:
        """Those that are packed; the others are added to `left_out`."""
        for row, made in results:
            if isinstance(made, str):
                left_out.append((self._short(self.index.videos[row].path), made))
            else:
                yield row, made

    def _add(self, file: tarfile.TarFile, key: str, row: int, path: Path, info: VideoInfo) -> Known:
        """Moves a video, and what is said of it, into a shard."""
        original = self.index.videos[row]
        fields = {"key": key, "path": self._short(original.path), **self._cells(row)}
        names = ("width", "height", "frames", "fps", "codec", "bytes")
        text = json.dumps({**fields, "original": {name: getattr(original, name) for name in names}}).encode()
        begin = file.offset + tarfile.BLOCKSIZE
        name = f"{key}.mp4"
        with path.open("rb") as video:
            file.addfile(_member(name, info.bytes), video)
        path.unlink()
        file.addfile(_member(f"{key}.json", len(text)), io.BytesIO(text))
        return Known(name, replace(info, span=Span(str(file.name), begin, info.bytes)), fields)

    def _cells(self, row: int) -> dict[str, Cell]:
        """Targets and group of a video: classes by name, or by number where they have no other name."""
        cells: dict[str, Cell] = {}
        for name, column in self.index.targets.items():
            value = column.values[row]
            if column.classes is None:
                cells |= {} if math.isnan(value) else {name: float(value)}
            elif value >= 0:
                told = column.classes[int(value)]
                cells[name] = int(value) if told == str(int(value)) else told
        if self.index.groups and self.index.groups[row]:
            cells[GROUP] = self.index.groups[row]
        return cells

    def _write_stats(self, known: list[Known], left_out: list[tuple[str, str]]) -> None:
        stats = {
            "count": len(known) + len(left_out),
            "successes": len(known),
            "failed_to_download": 0,
            "failed_to_subsample": len(left_out),
            "status_dict": {"success": len(known), **Counter(reason for _, reason in left_out)},
            "left_out": left_out,
        }
        write_whole(self._path(self.shards, _STATS), lambda part: part.write_text(json.dumps(stats, indent=1) + "\n"))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
