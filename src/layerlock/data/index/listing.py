"""The videos of a data set before any is opened, and how the rows of a list become that."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from layerlock.data.index.columns import Wanted, read_columns
from layerlock.data.index.rows import Entry, Rows
from layerlock.data.targets import Column, Labelled
from layerlock.errors import LayerlockError

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Listing(Labelled):
    """The videos of a data set, before any is opened; at least one."""

    data: str
    """absolute path of what was named: a folder, a list or a video"""
    root: str
    """absolute path of the folder that the videos are below, where a list does not say otherwise"""
    layout: str
    """what was recognized, in words"""
    paths: tuple[str, ...]
    """absolute; of a folder sorted, of a list in its order"""
    targets: Mapping[str, Column] = field(default_factory=dict)
    """what is known of each path, by name: `label` and columns of the list"""
    groups: tuple[str, ...] = ()
    """what each path belongs to, "" where the list does not say; () where it has no such column"""
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what is known to be unusable already"""
    list_name: str = ""
    """of a list: its name and what its rows are counted in, "train.csv, line" """
    rows: tuple[int, ...] = ()
    """of a list: the row of each path"""
    hint: str = ""
    """of a list: what may help where nothing is there"""

    def __len__(self) -> int:
        return len(self.paths)

    def place(self, position: int) -> str:
        """Where the list names a path, "train.csv, line 17"; empty where there is no list."""
        return f"{self.list_name} {self.rows[position]}" if self.rows else ""


class NothingUsable(LayerlockError):
    """No video of a data set can be used: `summary` says so, `rejected` are all that were tried, as (path, reason)."""

    def __init__(self, data: str, rejected: Iterable[tuple[str, str]], *, hint: str = "") -> None:
        self.rejected = tuple(rejected)
        count = len(self.rejected)
        tried = "the only video" if count == 1 else f"none of the {count:,} videos"
        self.summary = f"{tried} of {printable(data)} can{'not' if count == 1 else ''} be used"
        lines = [f"{self.summary}:"]
        lines += [f"  - {printable(f'{path}: {reason}')}" for path, reason in self.rejected[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"  - and {count - _SHOWN:,} more")
        self.hint = hint if all(reason.startswith("no such file") for _, reason in self.rejected) else ""
        if self.hint:
            lines.append(self.hint)
        super().__init__("\n".join(lines))


def listing_of(
    rows: Rows,
    entries: Sequence[Entry],
    *,
    root: str,
    layout: str,
    wanted: Wanted,
    data: str = "",
    classes: Sequence[str] | None = None,
    closed: Sequence[tuple[str, str]] = (),
) -> Listing:
    """The listing of a list's entries, with the columns `wanted` as targets (`read_columns` says which others).

    `classes` are names of labels by number where a file beside the list gives them, `closed` the (path, reason) of
    folders in which the entries could not be searched for.

    Files that are not there count for class numbers, so that these do not depend on what was downloaded. A file that is
    listed again is left out. Raises LayerlockError where there is no entry, for a value that is not of its column's
    kind, and for a file with two values in one column.
    """
    if not entries:
        raise LayerlockError(f"{rows.path}: it lists no videos")
    targets = read_columns(rows, entries, wanted, classes)
    once = _without_repeats(rows, entries, targets)
    kept = [n for n in once if entries[n].there]
    missing = [
        (entries[n].path, f"no such file below {root}; listed in {rows.place(entries[n].row)}")
        for n in once
        if not entries[n].there
    ]
    rejected = (*closed, *missing)
    hint = f"Paths begin at {printable(root)}; --data-root names another folder."
    if not kept:
        raise NothingUsable(rows.path, rejected, hint=hint)
    groups = tuple(_group(entries[n]) for n in kept)
    return Listing(
        data=data or rows.path,
        root=root,
        layout=layout,
        paths=tuple(entries[n].path for n in kept),
        targets={name: column.take(kept) for name, column in targets.items()},
        groups=groups if any(groups) else (),
        rejected=rejected,
        list_name=rows.name,
        rows=tuple(entries[n].row for n in kept),
        hint=hint,
    )


def listed_path(root: str, name: str) -> str:
    """The absolute path of what a list calls `name`: below `root`, and with slashes where Windows wrote the list."""
    path = os.path.abspath(os.path.join(root, name))
    if "\\" in name and not os.path.lexists(path):
        return os.path.abspath(os.path.join(root, name.replace("\\", "/")))
    return path


def _group(entry: Entry) -> str:
    """What a column `group`, of any names or numbers, says of an entry; empty where it says nothing."""
    group = entry.values.get("group")
    return "" if group is None or (isinstance(group, float) and math.isnan(group)) else str(group).strip()


def printable(name: str) -> str:
    """A file's name in one line: control characters and bytes that are no text become escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _without_repeats(rows: Rows, entries: Sequence[Entry], targets: Mapping[str, Column]) -> list[int]:
    """Positions of the entries that name a file for the first time."""
    first: dict[str, int] = {}
    for n, entry in enumerate(entries):
        before = first.setdefault(entry.path, n)
        for name, column in targets.items():
            if column.values[before] != column.values[n] and not (_is_nan(column, before) and _is_nan(column, n)):
                value, other = entry.values.get(name), entries[before].values.get(name)
                raise rows.problem(
                    entry.row,
                    f"{printable(entry.path)} has the {name} {value}, but {other} in {rows.unit} {entries[before].row}",
                )
    return list(first.values())


def _is_nan(column: Column, row: int) -> bool:
    return math.isnan(column.values[row])
