"""Text files with a path in each line, or with a path and its label: the number of its class (as VideoMAE and V-JEPA
have them), or a quantity.

Between the two may be a number of frames (as in lists of folders of frames of mmaction2 and TSN), which is not used:
frames are counted. Columns are separated by a space, a tab, a comma or a semicolon; the first line, and for numbers of
frames all lines, tell which kind of list it is. A path
may stand in double quotes, as in csv files, and has to where it begins with a quote, ends with one of these, or goes
over two lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from layerlock.data.decode.images import folder_of
from layerlock.data.decode.video import has_video_ending
from layerlock.data.index.columns import Wanted, number
from layerlock.data.index.listing import Listing, listed_path, listing_of, printable
from layerlock.data.index.rows import Entry, Rows
from layerlock.data.targets import LABEL

_QUOTED = re.compile(
    r'"(?P<path>(?:[^"]|"")*)"'
    r'(?:(?:[ \t,;]+"?(?P<frames>[0-9]+)"?)?[ \t,;]+"?(?P<label>[^ \t,;"]+)"?)?'
)
_COUNTED = re.compile(r"(?P<path>.*?)[ \t,;]+[0-9]+")
_BARE = re.compile(r"(?P<path>.*?)[ \t,;]+(?P<label>[^ \t,;]+)")


class _Line(NamedTuple):
    """A line, and what it is where it has a label."""

    row: int
    whole: str
    """the line as a path"""
    path: str
    label: str | None
    counted: str | None = None
    """the path where the number before the label is one of frames"""


_EXPECTED = (
    "a line holds a path, a path and its label, or a path, a number of frames and the label; a label is a number"
)


def read_path_list(path: str, text: str, root: str | None, wanted: Wanted) -> Listing:
    """The listing of the list at `path`, whose text is `text`; paths begin at `root`, without one beside the list.

    Raises LayerlockError for an empty list, odd quotes, and where one line has columns that another has not.
    """
    root = root or os.path.dirname(path)
    rows = Rows(path=path, unit="line", numbered=[])
    lines = [_line(rows, row, line) for row, line in _logical_lines(rows, text)]
    labelled = bool(lines) and lines[0].label is not None and not _is_path(root, lines[0].whole)
    if labelled:
        _check_no_header(rows, lines[0])
        lines = _without_frames(rows, root, lines)
    entry = _with_label if labelled else _without_label
    entries = [entry(rows, root, line) for line in lines]
    layout = "list of paths and labels" if labelled else "list of paths"
    return listing_of(rows, entries, root=root, layout=layout, wanted=wanted)


def _logical_lines(rows: Rows, text: str) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank; a line break in quotes belongs to the path."""
    lines = enumerate(text.split("\n"), 1)
    for row, first in lines:
        line = first.lstrip()
        while line.startswith('"') and line.count('"') % 2:
            _, more = next(lines, (0, None))
            if more is None:
                raise rows.problem(row, "a quote is opened here and never closed")
            line = f"{line}\n{more}"
        if line.strip():
            yield row, line.rstrip()


def _line(rows: Rows, row: int, line: str) -> _Line:
    """The line cut at its last separator."""
    if line.startswith('"'):
        match = _QUOTED.fullmatch(line)
        if not match:
            raise rows.problem(row, f"only a label can follow a path in quotes: {printable(line)}")
        path = match["path"].replace('""', '"')
        if not path:
            raise rows.problem(row, "the path is empty")
        counted = None if match["frames"] is None else path
        return _Line(row, path if match["label"] is None else line, path, match["label"], counted)
    match = _BARE.fullmatch(line)
    return (
        _Line(row, line, match["path"], match["label"], _cut(match["path"])) if match else _Line(row, line, line, None)
    )


def _cut(path: str) -> str | None:
    """What is before a number at the end."""
    match = _COUNTED.fullmatch(path)
    return match["path"] if match else None


def _is_path(root: str, line: str) -> bool:
    return has_video_ending(line) or os.path.lexists(folder_of(listed_path(root, line)))


def _without_frames(rows: Rows, root: str, lines: list[_Line]) -> list[_Line]:
    """The lines without their numbers of frames, where they have such.

    The first path that is there, or ends like a video, tells what the number before a label is. Without any it is one
    of frames where all lines have one.
    """
    all_counted = all(line.counted is not None for line in lines)
    told = (known for line in lines if (known := _is_counted(rows, root, line)) is not None)
    if not next(told, all_counted):
        return lines
    for line in lines:
        if line.label is not None and line.counted is None:
            raise rows.problem(line.row, f"the number of frames is missing, and other lines have one: {_shown(line)}")
    return [line._replace(path=line.counted or line.path) for line in lines]


def _is_counted(rows: Rows, root: str, line: _Line) -> bool | None:
    """Whether the number before the label is one of frames; None where this line does not say."""
    if _is_path(root, line.path):
        return False if line.counted is None or line.counted != line.path else None
    if line.counted is None:
        return None
    if _is_path(root, line.counted):
        return True
    shorter = _cut(line.counted)
    if shorter is not None and _is_path(root, shorter):
        raise rows.problem(line.row, f"there are more than three columns; {_EXPECTED}: {_shown(line)}")
    return None


def _shown(line: _Line) -> str:
    return printable(line.whole)


def _check_no_header(rows: Rows, first: _Line) -> None:
    if first.label is not None and number(first.label) is None:
        raise rows.problem(
            first.row,
            f"the label {printable(first.label)!r} is not a number; {_EXPECTED}. If this line names columns, one must "
            f"be file_name (or path, video, ...; for Kinetics youtube_id): {_shown(first)}",
        )


def _with_label(rows: Rows, root: str, line: _Line) -> Entry:
    if line.label is None:
        raise rows.problem(line.row, f"the label is missing, and the first line has one: {_shown(line)}")
    if number(line.label) is None and line.label.lower() != "nan":
        raise rows.problem(
            line.row, f"the label {printable(line.label)!r} is not a number; {_EXPECTED}: {_shown(line)}"
        )
    return Entry(line.row, listed_path(root, line.path), {LABEL: line.label})


def _without_label(rows: Rows, root: str, line: _Line) -> Entry:
    if line.label is not None and has_video_ending(line.path) and not _is_path(root, line.whole):
        raise rows.problem(line.row, f"there is a label, {printable(line.label)}, and the first line has none")
    return Entry(line.row, listed_path(root, line.whole), {})
