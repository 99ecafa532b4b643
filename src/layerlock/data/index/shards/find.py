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
from layerlock.data.ranges import read_text, size_of_file
from layerlock.data.remote import is_remote, list_remote, refuse_secrets
from layerlock.errors import LayerlockError

TAR = ".tar"
TABLE = "index.safetensors"
"""name of the table of all shards"""


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of a data set, before any is opened."""

    data: str
    """absolute path or URL of the folder, the list or the only shard"""
    root: str
    """the folder that names of shards begin at"""
    named: tuple[tuple[str, int], ...]
    """name and size in bytes; of a folder sorted, of a list in its order"""
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of shards that cannot be opened"""

    @property
    def place(self) -> Callable[[str], str]:
        """Gives the path of a shard by its name."""
        return partial(_joined, self.root)

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
            beside.append(home_in_cache(self.data))
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


def home_in_cache(data: str) -> Path:
    """Where the user's cache folder has what is known of a data set. Raises RuntimeError without a home folder."""
    return cache_folder() / "shards" / hashlib.blake2b(os.fsencode(data), digest_size=16).hexdigest()


def are_shards(data: str) -> bool:
    """Whether a data set is a URL, a tar file, a folder of them that holds no video files, or a list of them."""
    if is_remote(data):
        return True
    if not os.path.isdir(data):
        return data.endswith(TAR) or (data.endswith(".txt") and _lists_shards(data))
    if os.path.exists(os.path.join(data, TABLE)):
        return True
    with suppress(OSError), os.scandir(data) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
        return any(name.endswith(TAR) for name in names) and not any(map(has_video_ending, names))
    return False


def absolute(data: str) -> str:
    """The place of a data set that is no relative path. LayerlockError for a URL with secrets."""
    refuse_secrets(data)
    return data.rstrip("/") if is_remote(data) else os.path.abspath(data)


def find_shards(data: str, root: str | None = None) -> Shards:
    """The shards of a folder, or of a list whose paths begin at `root`. Raises LayerlockError."""
    data = absolute(data)
    is_folder, is_list = os.path.isdir(data), data.endswith(".txt")
    if root is not None and (is_folder or not is_list):
        raise LayerlockError(f"data_root: {printable(data)} is not a list of paths; only lists take it")
    try:
        if is_folder:
            with os.scandir(data) as entries:
                named = sorted((entry.name, entry.stat().st_size) for entry in entries if _is_shard(entry.name))
            return _some(Shards(data=data, root=data, named=tuple(named)))
        if is_list:
            lines = map(str.strip, read_text(data).splitlines())
            root, names = absolute(root or os.path.dirname(data)), list(dict.fromkeys(filter(None, lines)))
        elif data.endswith(TAR):
            root, names = os.path.dirname(data), [os.path.basename(data)]
        else:
            root, names = data, list(filter(_is_shard, list_remote(data)))
    except (OSError, ValueError) as error:
        raise LayerlockError(f"{printable(data)}: it cannot be read ({error})") from None
    named, rejected = [], []
    for name in names:
        refuse_secrets(name)
        try:
            named.append((name, size_of_file(_joined(root, name))))
        except OSError as error:
            rejected.append((_joined(root, name), f"it cannot be opened: {error.strerror or error}"))
    return _some(Shards(data=data, root=root, named=tuple(named), rejected=tuple(rejected)))


def _some(shards: Shards) -> Shards:
    if not shards.named and not shards.rejected:
        raise LayerlockError(f"{printable(shards.data)}: there are no shards; their names end in {TAR}")
    return shards


def _is_shard(name: str) -> bool:
    return name.endswith(TAR) and not name.startswith(".")


def _joined(root: str, name: str) -> str:
    return name if is_remote(name) else os.path.join(root, name)


def _lists_shards(path: str) -> bool:
    """Whether the first line of a text file names a tar file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline().strip().endswith(TAR)
    except (OSError, UnicodeDecodeError):
        return False
