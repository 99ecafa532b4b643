"""The videos and labels of a data set before any video is opened, and how the rows of a list become that."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from layerlock.data.index.rows import Rows
from layerlock.errors import LayerlockError

MOST_CLASSES = 1_000_000
"""a larger class number is taken for a mistake"""

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

_WHOLE = re.compile(r"(?P<digits>[+-]?[0-9]{1,18})(?:\.0*)?")

_REAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)(?:[eE][+-]?[0-9]+)?")

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The videos of a data set, before any is looked into; at least one."""

    data: str
    """absolute path of what was named: a folder, a list or a video"""
    root: str
    """absolute path of the folder that the videos are below, where a list does not say otherwise"""
    layout: str
    """what was recognized, in words"""
    paths: tuple[str, ...]
    """absolute; of a folder sorted, of a list in its order"""
    labels: tuple[int, ...]
    """class of each path, -1 where there is none"""
    classes: tuple[str, ...] = ()
    """names of the classes by number, () where there are no labels"""
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


class Entry(NamedTuple):
    """A video as a list names it."""

    row: int
    path: str
    """absolute"""
    label: int | str | None
    there: bool = True
    """False: it was searched for in vain"""
    group: str = ""
    """of a column `group`: the recording, room or subject that it belongs to"""


def listing_of(
    rows: Rows,
    entries: Sequence[Entry],
    *,
    root: str,
    layout: str,
    data: str = "",
    classes: Sequence[str] | None = None,
    closed: Sequence[tuple[str, str]] = (),
) -> Listing:
    """The listing of a list's entries; `classes` are their names by number where a file beside the list gives them.

    `closed` are the (path, reason) of folders in which the entries could not be searched for.

    Labels that are all whole numbers stay those numbers; else the classes are the sorted names. Files that are not
    there count too, so that numbers do not depend on what was downloaded. A file that is listed again is left out.
    Raises LayerlockError where there is no entry, for a label that cannot be, and for a file with two labels.
    """
    if not entries:
        raise LayerlockError(f"{rows.path}: it lists no videos")
    number_of, names = _numbered(rows, entries, classes)
    kept = _without_repeats(rows, entries, number_of)
    there = [entry for entry in kept if entry.there]
    missing = [
        (entry.path, f"no such file below {root}; listed in {rows.place(entry.row)}")
        for entry in kept
        if not entry.there
    ]
    rejected = (*closed, *missing)
    hint = f"Paths begin at {printable(root)}; --data-root names another folder."
    if not there:
        raise NothingUsable(rows.path, rejected, hint=hint)
    return Listing(
        data=data or rows.path,
        root=root,
        layout=layout,
        paths=tuple(entry.path for entry in there),
        labels=tuple(number_of[entry.label] for entry in there),
        classes=names,
        groups=tuple(entry.group for entry in there) if any(entry.group for entry in there) else (),
        rejected=rejected,
        list_name=rows.name,
        rows=tuple(entry.row for entry in there),
        hint=hint,
    )


def listed_path(root: str, name: str) -> str:
    """The absolute path of what a list calls `name`: below `root`, and with slashes where Windows wrote the list."""
    path = os.path.abspath(os.path.join(root, name))
    if "\\" in name and not os.path.lexists(path):
        return os.path.abspath(os.path.join(root, name.replace("\\", "/")))
    return path


def whole(text: str) -> int | None:
    """The whole number that a label is, `3` or `3.0`; None where it is none."""
    found = _WHOLE.fullmatch(text)
    return int(found["digits"]) if found else None


def is_real(label: str) -> bool:
    """Whether a label is a number with a fraction."""
    return bool(_REAL.fullmatch(label)) and whole(label) is None


def label_of(rows: Rows, row: int, values: Mapping[str, Any]) -> int | str | None:
    """The label of a row: a name or a whole number, None where it is left empty."""
    label = values.get("label")
    if isinstance(label, str):
        label = label.strip()
    if isinstance(label, float):  # a column of whole numbers with gaps: nan where there is none
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    if label is None or label == "":
        return None
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise rows.problem(row, f"label is {label!r}; it has to be a name or a whole number")
    if isinstance(label, str) and is_real(label):
        raise rows.problem(row, f"label is {label}; it has to be a name or a whole number: quantities are not learned")
    return label


def group_of(values: Mapping[str, Any]) -> str:
    """The group of a row, by a column `group`: any name or number; empty where there is none."""
    group = values.get("group")
    return "" if group is None or (isinstance(group, float) and math.isnan(group)) else str(group).strip()


def printable(name: str) -> str:
    """A file's name in one line: control characters and bytes that are no text become escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _numbered(
    rows: Rows, entries: Sequence[Entry], classes: Sequence[str] | None
) -> tuple[Mapping[int | str | None, int], tuple[str, ...]]:
    """The number of each label, and the names of the classes by number."""
    first: dict[int | str | None, int] = {}
    for entry in entries:
        first.setdefault(entry.label, entry.row)
    labels = [label for label in first if label is not None]
    found = {label: whole(str(label)) for label in labels} if classes is None else {None: None}
    numbers: dict[int | str | None, int] = {label: number for label, number in found.items() if number is not None}
    if len(numbers) == len(found):
        for label, number in numbers.items():
            if not -1 <= number < MOST_CLASSES:
                raise rows.problem(first[label], f"the label {label} is no class number (0 to {MOST_CLASSES - 1:,})")
        return {None: -1, **numbers}, tuple(map(str, range(max(numbers.values(), default=-1) + 1)))
    names = sorted(map(str, labels)) if classes is None else classes
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    for label in labels:
        if str(label) not in number_of:
            raise rows.problem(first[label], f"the class {label!r} is not among the {len(number_of)} numbered ones")
    return {label: -1 if label is None else number_of[str(label)] for label in first}, tuple(number_of)


def _without_repeats(rows: Rows, entries: Sequence[Entry], number_of: Mapping[int | str | None, int]) -> list[Entry]:
    kept: dict[str, Entry] = {}
    for entry in entries:
        before = kept.setdefault(entry.path, entry)
        if number_of[before.label] != number_of[entry.label]:
            raise rows.problem(
                entry.row,
                f"{printable(entry.path)} has the label {entry.label}, and {before.label} in {rows.unit} {before.row}",
            )
    return list(kept.values())
