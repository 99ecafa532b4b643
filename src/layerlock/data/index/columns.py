"""Columns of a list as targets of its videos: which of them are read, and as what.

Read are `label`, columns whose name in the list ends in their kind (`speed:float`, `room:class`), and those that are
asked for. Without a kind the values tell: numbers are floats where one of them has a fraction, else the numbers of
classes; names, or names and whole numbers, are classes in the order of the sorted names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from layerlock.data.index.rows import Entry, Rows
from layerlock.data.targets import LABEL, Column, ColumnKind
from layerlock.errors import LayerlockError

MOST_CLASSES = 1_000_000
"""a larger class number is taken for a mistake"""

Wanted = Mapping[str, ColumnKind | None]
"""columns that are asked for, each with the kind that it has to be of; None: what the list says"""

_Cell = int | float | str | None

_WHOLE = re.compile(r"(?P<digits>[+-]?[0-9]{1,18})(?:\.0*)?")

_REAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)(?:[eE][+-]?[0-9]+)?")


def read_columns(
    rows: Rows, entries: Sequence[Entry], wanted: Wanted, classes: Sequence[str] | None = None
) -> dict[str, Column]:
    """The targets of the entries of a list; `classes` are names of labels by number, where another file gives them.

    Raises LayerlockError for a column of `wanted` that is not there (but `label`, which a list need not have), and for
    a value that is not of its column's kind.
    """
    there = {name: None for entry in entries for name in entry.values}
    for name in wanted:
        if name not in there and name != LABEL:
            raise LayerlockError(f"{rows.path}: there is no column {name}; its columns are: {', '.join(there)}")
    names = [name for name in there if name == LABEL or name in wanted or name in rows.kinds]
    return {
        name: read_column(rows, entries, name, wanted.get(name), classes if name == LABEL else None) for name in names
    }


def number(value: int | float | str) -> int | float | None:
    """The number that a value is, whole where it is `3` or `3.0`; None where it is none."""
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    match = _WHOLE.fullmatch(value)
    if match:
        return int(match["digits"])
    return float(value) if _REAL.fullmatch(value) and math.isfinite(float(value)) else None


def read_column(
    rows: Rows, entries: Sequence[Entry], name: str, wanted: ColumnKind | None, classes: Sequence[str] | None
) -> Column:
    """One column; `wanted` is the kind that it has to be of, if any. Raises LayerlockError as `read_columns` does."""
    cells = [_cell(rows, entry, name) for entry in entries]
    kind = "class" if classes is not None else _kind(rows, entries, cells, name, wanted)
    if kind == "float":
        return Column(values=tuple(_float(rows, entry, name, x) for entry, x in zip(entries, cells, strict=True)))
    return _numbered(rows, entries, cells, name, classes)


def _cell(rows: Rows, entry: Entry, name: str) -> _Cell:
    """A value without spaces around it; None where there is none."""
    value = entry.values.get(name)
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and math.isnan(value):  # what a table has where a number is missing
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | None) or value in (math.inf, -math.inf):
        raise rows.problem(entry.row, f"{name} is {value!r}; it has to be a name or a number")
    return value


def _kind(
    rows: Rows, entries: Sequence[Entry], cells: Sequence[_Cell], name: str, wanted: ColumnKind | None
) -> ColumnKind:
    """What the column's name says, else what is wanted where the values can be that, else what the values tell."""
    declared = rows.kinds.get(name)
    if declared and wanted and declared != wanted:
        raise LayerlockError(f"{rows.path}: the column {name}:{declared} is not a {wanted}")
    if declared or wanted == "float":
        return declared or "float"
    numbers = [None if cell is None else number(cell) for cell in cells]
    fraction = next((n for n, value in enumerate(numbers) if isinstance(value, float)), None)
    if fraction is None:
        return "class"
    row, value = entries[fraction].row, cells[fraction]
    if wanted == "class":
        raise rows.problem(
            row,
            f"{name} is {value}, which is not a class; to read such numbers as classes, name the column {name}:class",
        )
    for n, cell in enumerate(cells):
        if isinstance(cell, str) and numbers[n] is None and cell.lower() != "nan":
            raise rows.problem(
                entries[n].row,
                f"{name} is {cell!r}, but {value} in {rows.unit} {row}: a column holds either names or numbers; "
                f"to read all of them as names, name it {name}:class",
            )
    return "float"


def _float(rows: Rows, entry: Entry, name: str, cell: _Cell) -> float:
    if cell is None or (isinstance(cell, str) and cell.lower() == "nan"):
        return math.nan
    value = number(cell)
    if value is None:
        raise rows.problem(entry.row, f"{name} is {cell!r}; it has to be a number")
    return float(value)


def _numbered(
    rows: Rows, entries: Sequence[Entry], cells: Sequence[_Cell], name: str, classes: Sequence[str] | None
) -> Column:
    """Classes by their numbers where all of them are whole numbers, else in the order of their sorted names."""
    first: dict[int | float | str, int] = {}
    for entry, cell in zip(entries, cells, strict=True):
        if cell is not None:
            first.setdefault(cell, entry.row)
    number_of = {cell: value for cell in first if isinstance(value := number(cell), int)}
    if classes is None and len(number_of) == len(first):
        for cell, value in number_of.items():
            if not -1 <= value < MOST_CLASSES:
                raise rows.problem(
                    first[cell],
                    f"{name} is {cell}, which is not a class number (0 to {MOST_CLASSES - 1:,}); to read it "
                    f"as a quantity, name the column {name}:float",
                )
        names = tuple(map(str, range(max(number_of.values(), default=-1) + 1)))
    else:
        named = {
            text: n for n, text in enumerate(dict.fromkeys(sorted(map(str, first)) if classes is None else classes))
        }
        for cell, row in first.items():
            if str(cell) not in named:
                raise rows.problem(
                    row, f"the class {cell!r} is not in the file of class numbers, which has {len(named)}"
                )
        number_of, names = {cell: named[str(cell)] for cell in first}, tuple(named)
    return Column(values=tuple(-1 if cell is None else number_of[cell] for cell in cells), classes=names)
