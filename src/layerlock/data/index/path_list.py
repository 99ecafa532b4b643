"""Text files with a path in each line, or with a path and the number of its class (as VideoMAE and V-JEPA have them).

Between path and number is a space, a tab, a comma or a semicolon; the first line tells which kind of list it is. A path
may stand in double quotes, as in csv files, and has to where it begins with a quote, ends with one of these, or goes
over two lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from layerlock.data.decode.video import has_video_ending
from layerlock.data.index.listing import WHOLE, Entry, Listing, listing_of, printable
from layerlock.data.index.rows import Rows

_QUOTED = re.compile(r'"(?P<path>(?:[^"]|"")*)"(?:[ \t,;]+"?(?P<label>[^ \t,;"]+)"?)?')
_BARE = re.compile(r"(?P<path>.*?)[ \t,;]+(?P<label>[^ \t,;]+)")


class _Line(NamedTuple):
    """A line, and what it is where it has a label."""

    row: int
    whole: str
    """the line as a path"""
    path: str
    label: str | None


def read_path_list(path: str, text: str) -> Listing:
    """The listing of the list at `path`, whose text is `text`.

    Raises LayerlockError for an empty list, odd quotes, and where one line has a label and another none.
    """
    root = os.path.dirname(path)
    rows = Rows(path=path, unit="line", numbered=[])
    lines = [_line(rows, row, line) for row, line in _logical_lines(rows, text)]
    labelled = bool(lines) and lines[0].label is not None and not _is_path(root, lines[0].whole)
    if labelled:
        _check_no_header(rows, lines[0])
    entry = _with_label if labelled else _without_label
    entries = [entry(rows, root, line) for line in lines]
    return listing_of(rows, entries, root=root, layout="list of paths and labels" if labelled else "list of paths")


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
        found = _QUOTED.fullmatch(line)
        if not found:
            raise rows.problem(row, f"after a path in quotes comes a label or nothing, not this: {printable(line)}")
        path = found["path"].replace('""', '"')
        if not path:
            raise rows.problem(row, "the path is empty")
        return _Line(row, path if found["label"] is None else line, path, found["label"])
    found = _BARE.fullmatch(line)
    return _Line(row, line, found["path"], found["label"]) if found else _Line(row, line, line, None)


def _is_path(root: str, line: str) -> bool:
    return has_video_ending(line) or os.path.lexists(os.path.join(root, line))


def _check_no_header(rows: Rows, first: _Line) -> None:
    if first.label is not None and not WHOLE.fullmatch(first.label):
        raise rows.problem(
            first.row,
            f"the label {printable(first.label)!r} is no whole number; if this line names columns, there is none "
            "called file_name (or, for Kinetics, youtube_id)",
        )


def _with_label(rows: Rows, root: str, line: _Line) -> Entry:
    if line.label is None:
        raise rows.problem(line.row, "there is no label, and the first line has one")
    if not WHOLE.fullmatch(line.label):
        raise rows.problem(line.row, f"the label {printable(line.label)!r} is no whole number")
    return Entry(line.row, os.path.abspath(os.path.join(root, line.path)), int(line.label))


def _without_label(rows: Rows, root: str, line: _Line) -> Entry:
    if line.label is not None and has_video_ending(line.path) and not _is_path(root, line.whole):
        raise rows.problem(line.row, f"there is a label, {printable(line.label)}, and the first line has none")
    return Entry(line.row, os.path.abspath(os.path.join(root, line.whole)), None)
