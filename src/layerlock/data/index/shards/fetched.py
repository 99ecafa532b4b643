"""The table that lies beside shards behind a URL, copied to the user's cache folder, where it can be mapped."""

from __future__ import annotations

from pathlib import Path

from layerlock.data.index.listing import printable
from layerlock.data.index.shards.find import TABLE, Shards, absolute, home_in_cache
from layerlock.data.index.shards.table import DamagedTable, Table
from layerlock.data.remote import fetch, is_remote, read_remote, size_of_remote
from layerlock.errors import LayerlockError
from layerlock.files import write_whole

_HEAD = 1 << 16
"""bytes by which a copy is compared with what is there: the digest of all is among them"""


def fetched_table(data: str) -> tuple[Table, Shards] | None:
    """The table beside the shards of a folder behind a URL, and the shards that it names, which are not looked at.

    None where there is none. A copy is used again while size and beginning are the same. Raises LayerlockError.
    """
    data = absolute(data)
    url = f"{data}/{TABLE}"
    if not is_remote(data) or data.endswith((".tar", ".txt")):
        return None
    try:
        path = home_in_cache(data) / f"fetched-{TABLE}"
        size = size_of_remote(url, fresh=True)
        if not _is_copy(path, size, read_remote(url, 0, min(size, _HEAD))):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda part: fetch(url, part))
        table = Table(path, url)
        if any("/" in name for name, _ in table.shards):  # it would lead to files elsewhere, of this machine too
            raise DamagedTable("it names shards outside its folder")
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, DamagedTable) as error:
        raise LayerlockError(f"{printable(url)}: it cannot be read ({error})") from None
    return table, Shards(data=data, root=data, named=tuple(table.shards))


def _is_copy(path: Path, size: int, head: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return path.stat().st_size == size and file.read(len(head)) == head
    except FileNotFoundError:
        return False
