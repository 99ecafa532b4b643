"""Which shards a data set has, and where what is known of them is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from layerlock.data.decode.video import has_video_ending
from layerlock.data.index.cache import cache_folder
from layerlock.data.index.listing import printable
from layerlock.errors import LayerlockError

TAR = ".tar"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of a data set, before any is opened."""

    data: str
    """absolute path of the folder, or of the list"""
    root: str
    """the folder that names of shards begin at"""
    named: tuple[tuple[str, int], ...]
    """name and size in bytes; of a folder sorted, of a list in its order"""
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of shards that cannot be opened"""

    @property
    def place(self) -> Callable[[str], str]:
        """Gives the path of a shard by its name."""
        return partial(os.path.join, self.root)

    def without(self, number: int, reason: str) -> Shards:
        """The others, where one cannot be read."""
        name, _ = self.named[number]
        return replace(
            self,
            named=self.named[:number] + self.named[number + 1 :],
            rejected=(*self.rejected, (self.place(name), reason)),
        )

    def homes(self) -> list[Path]:
        """Where the table and the records may be: beside the shards of a folder, and in the user's cache folder."""
        beside = [Path(self.data)] if os.path.isdir(self.data) else []
        with suppress(RuntimeError):  # there is no home folder
            beside.append(
                cache_folder() / "shards" / hashlib.blake2b(os.fsencode(self.data), digest_size=16).hexdigest()
            )
        return beside

    def writable_home(self) -> Path:
        """The first of these that can be written. Raises LayerlockError."""
        for home in self.homes():
            with suppress(OSError):
                home.mkdir(parents=True, exist_ok=True)
                if os.access(home, os.W_OK):
                    return home
        raise LayerlockError(
            f"{printable(self.data)}: the index of the shards can be written neither there nor in the cache folder; "
            "name another one in LAYERLOCK_CACHE"
        )


def are_shards(data: str) -> bool:
    """Whether a path is a folder of shards, which holds no video files, or a list of shards."""
    if not os.path.isdir(data):
        return bool(_listed(data))
    with suppress(OSError), os.scandir(data) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
        return any(name.endswith(TAR) for name in names) and not any(map(has_video_ending, names))
    return False


def find_shards(data: str, root: str | None = None) -> Shards:
    """The shards of a folder, or of a list whose paths begin at `root`. Raises LayerlockError."""
    data = os.path.abspath(data)
    if os.path.isdir(data):
        if root is not None:
            raise LayerlockError(f"data_root: {printable(data)} is not a list of paths; only lists take it")
        root = data
        with os.scandir(data) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(TAR) and entry.name[0] != ".")
    else:
        root, names = os.path.abspath(root or os.path.dirname(data)), list(dict.fromkeys(_listed(data)))
    named, rejected = [], []
    for name in names:
        try:
            named.append((name, os.path.getsize(os.path.join(root, name))))
        except OSError as error:
            rejected.append((os.path.join(root, name), f"it cannot be opened: {error.strerror}"))
    return Shards(data=data, root=root, named=tuple(named), rejected=tuple(rejected))


def _listed(data: str) -> list[str]:
    """The shards that a text file lists, one a line; none where it is another file."""
    if not data.endswith(".txt"):
        return []
    try:
        with open(data, encoding="utf-8-sig") as file:
            if not (first := file.readline().strip()).endswith(TAR):
                return []
            return [first, *filter(None, map(str.strip, file))]
    except (OSError, UnicodeDecodeError):
        return []
