"""The index of a data set of shards: the table of an earlier call, or a new one of what is in the shards.

For each shard there is a record, `00000_index.json`, and for all together the table, `index.safetensors`. A shard
without a record is looked into as every other video is: in processes that may crash.
"""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from layerlock.data.decode import probe
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.data.index.build import PROBE_SECONDS, Index, Progress
from layerlock.data.index.columns import Wanted
from layerlock.data.index.listing import NothingUsable, printable
from layerlock.data.index.shards.contents import Packed, read_contents
from layerlock.data.index.shards.fetched import fetched_table
from layerlock.data.index.shards.find import TABLE, Shards, find_shards
from layerlock.data.index.shards.merge import Target, write_table
from layerlock.data.index.shards.record import Known, Record, read_record, record_path, write_record
from layerlock.data.index.shards.table import DamagedTable, Groups, Table, Videos, targets_of
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.ranges import read_text
from layerlock.errors import LayerlockError

PACK = "pack.json"
"""what `layerlock pack` leaves beside the shards: its settings and the targets"""


def build_shards(
    data: str,
    workers: int | None = None,
    *,
    root: str | None = None,
    wanted: Wanted | None = None,
    progress: Progress | None = None,
    cache: bool = True,
) -> Index:
    """What a data set of shards holds; `build_index` says what the arguments are. Without `cache` all is read anew.

    Raises LayerlockError for columns that are not there, and where nothing can be used.
    """
    wanted = wanted or {}
    found = fetched_table(data) if cache and root is None else None
    if found and _serves(found[0], wanted):
        return _index(*found)
    shards = find_shards(data, root)
    table = _open_table(shards, wanted) if cache else None
    if table is None:
        shards = _with_records(shards, workers, progress or (lambda done, count: None), anew=not cache)
        table = _new_table(shards, wanted)
    return _index(table, shards)


def saved_shards(data: str, root: str | None, digest: str) -> Index | None:
    """The index that had a digest, as it is saved, whether the shards are still there or not; None where it is lost."""
    found = fetched_table(data) if root is None else None
    if found and found[0].digest == digest:
        return _index(*found)
    shards = find_shards(data, root)
    for home in shards.homes():
        with suppress(OSError, DamagedTable):
            table = Table(home / TABLE)
            if table.digest == digest:
                return _index(table, shards)
    return None


def _index(table: Table, shards: Shards) -> Index:
    rejected = (*shards.rejected, *((shards.place(name), reason) for name, reason in table.rejected))
    if not len(table):
        raise NothingUsable(shards.data, rejected or [(shards.data, "there is no video in its shards")])
    return Index(
        root=shards.root,
        layout="shards",
        videos=Videos(table, shards.place),
        targets=targets_of(table),
        groups=Groups(table) if table.about["groups"] else (),
        rejected=rejected,
    )


def _open_table(shards: Shards, wanted: Wanted) -> Table | None:
    """The table of an earlier call; None where it is of other shards or lacks a column."""
    for home in shards.homes():
        with suppress(OSError, DamagedTable):
            table = Table(home / TABLE)
            if _serves(table, wanted) and table.shards == list(shards.named):
                return table
    return None


def _serves(table: Table, wanted: Wanted) -> bool:
    """Whether a table has the columns that are wanted, if the videos have them."""
    asked = table.about["asked"]
    return all(name in asked and kind in (None, table.kind(name)) for name, kind in wanted.items())


def _new_table(shards: Shards, wanted: Wanted) -> Table:
    path = shards.writable_home() / TABLE
    earlier: dict[str, Any] = {}
    with suppress(OSError, DamagedTable):
        earlier = Table(path).about["asked"]  # who has asked for them may still be at work
    write_table(
        path,
        shards.named,
        lambda number: _record(shards, number) or _vanished(shards, number),
        data=shards.data,
        wanted=wanted,
        earlier=earlier,
        packed=_packed(os.path.join(shards.root, PACK)),
    )
    return Table(path)


def _vanished(shards: Shards, number: int) -> Record:
    raise LayerlockError(f"{printable(shards.place(shards.named[number][0]))}: its index was removed meanwhile")


def _record(shards: Shards, number: int) -> Record | None:
    name, size = shards.named[number]
    found = (read_record(record_path(home, name), name, shards.place(name), size) for home in shards.homes())
    return next(filter(None, found), None)


def _packed(place: str) -> dict[str, Target]:
    """The targets that a pack was written with."""
    try:
        targets = json.loads(read_text(place))["targets"]
        return {
            name: Target(kind="float" if classes is None else "class", classes=classes and tuple(classes))
            for name, classes in targets.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LayerlockError(f"{printable(place)}: it cannot be read ({error})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LayerlockError(f"{printable(place)}: it is damaged") from None


def _with_records(shards: Shards, workers: int | None, progress: Progress, *, anew: bool) -> Shards:
    """Looks into the shards that have no record and writes what is there; those that cannot be read are left out."""
    new = [number for number in range(len(shards.named)) if anew or _record(shards, number) is None]
    home, unread, done = shards.writable_home(), list[tuple[int, str]](), 0
    for turn, number in enumerate(new):
        name, size = shards.named[number]

        def told(count: int, here: int, before: int = done, left: int = len(new) - turn - 1) -> None:
            progress(before + count, before + here * (1 + left))  # as if the others held as many

        try:
            videos, rejected = _look_into(shards.place(name), size, workers, told)
        except OSError as error:
            unread.append((number, f"it cannot be read: {error}"))
            continue
        done += len(videos)
        write_record(record_path(home, name), name, size, videos, rejected)
    for number, reason in reversed(unread):
        shards = shards.without(number, reason)
    return shards


def _look_into(
    place: str, size: int, workers: int | None, progress: Progress
) -> tuple[list[Known], list[tuple[str, str]]]:
    """The videos of a shard, and (name, reason) of what cannot be used. Raises OSError where it cannot be read."""
    contents = read_contents(place, size)
    videos, rejected = list[Known](), contents.rejected
    with closing(run_in_processes(_probe, contents.videos, workers=workers, seconds=PROBE_SECONDS)) as found:
        for number, (packed, verdict) in enumerate(zip(contents.videos, found, strict=True)):
            if isinstance(verdict, _Unread):
                raise OSError(verdict.reason)
            if isinstance(verdict, VideoInfo):
                videos.append(Known(packed.name, verdict, packed.fields))
            else:
                reason = f"decoding fails: {verdict.reason}" if isinstance(verdict, Failure) else verdict
                rejected.append((packed.name, reason))
            progress(number + 1, len(contents.videos))
    return videos, rejected


@dataclass(frozen=True)
class _Unread:
    """Why the bytes of a video could not be had."""

    reason: str


def _probe(packed: Packed) -> VideoInfo | str | _Unread:
    import av

    try:
        return probe(os.path.join(packed.span.shard, packed.name), packed.span)
    except UnreadableVideo as error:
        cause = error.__cause__  # FFmpeg's errors, some of which are OSErrors too, come from what is in the video
        lost = isinstance(cause, OSError | MemoryError) and not isinstance(cause, av.FFmpegError)
        return _Unread(error.reason) if lost else error.reason
