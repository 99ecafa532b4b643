"""Text, csv, json and parquet files as rows, with the place of each for messages."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

from layerlock.data.decode.video import has_video_ending
from layerlock.data.targets import ColumnKind
from layerlock.errors import LayerlockError

SEPARATORS = ",;\t "
"""what may stand between the columns of a csv file"""

KNOWN_AS = {
    "file_name": ("filename", "path", "file_path", "filepath", "video_path", "video", "file", "clip", "frame_dir"),
    "label": ("class", "class_name", "label_id", "class_id"),
}
"""what else the columns of csv files may be called; the first that is there counts"""

KEY_COLUMNS = frozenset({"file_name", "youtube_id"})
"""columns by which a csv file whose first line names its columns is distinguished from a list of paths"""


_SPACED = frozenset({"file_name", "frames", "num_frames", "total_frames", "label", "group"})


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a file lists."""

    path: str
    unit: str
    """what its rows are counted in: line, row or entry"""
    numbered: Sequence[tuple[int, Mapping[str, Any]]]
    """number of each row, from 1, and its values by column"""
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    """kinds of the columns whose names in the file end in one"""

    def place(self, number: int) -> str:
        """Where a row is: "train.csv, line 17"."""
        return f"{self.name} {number}"

    @property
    def name(self) -> str:
        """The file and what its rows are counted in: "train.csv, line"."""
        return f"{os.path.basename(self.path)}, {self.unit}"

    def problem(self, number: int, text: str) -> LayerlockError:
        """The error to raise for a row."""
        return LayerlockError(f"{self.path}, {self.unit} {number}: {text}")


class Entry(NamedTuple):
    """A video as a list names it."""

    row: int
    path: str
    """absolute"""
    values: Mapping[str, Any]
    """by column"""
    there: bool = True
    """False: it was searched for in vain"""


def read_text(path: str) -> str:
    """The text of a UTF-8 file, without its byte-order mark. Raises LayerlockError."""
    data = _read(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LayerlockError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def header(text: str) -> list[str]:
    """The names of the columns of a csv file, as our lists have them; [] where its first line is no such names."""
    return _header(text)[1]


def _header(text: str) -> tuple[str, list[str]]:
    """What separates the columns, and their names. It is a comma where no other mark yields a name that lists have."""
    first, _, _ = text.lstrip().partition("\n")
    for mark in SEPARATORS:
        names, _ = _known([field.strip().strip('"').strip() for field in first.split(mark)])
        plain = mark != " " or _SPACED.issuperset(names)  # a path may hold spaces and such words
        if plain and not KEY_COLUMNS.isdisjoint(names) and not any(map(_looks_like_a_value, names)):
            return mark, names
    return ",", []


def _known(names: Sequence[str]) -> tuple[list[str], dict[str, ColumnKind]]:
    """The names with those of `KNOWN_AS` in place of others, whatever the case of their letters, and their kinds."""
    both = [declared(name) for name in names]
    known = [name for name, _ in both]
    for name, others in KNOWN_AS.items():
        small = [each.lower() for each in known]
        if name not in known:
            also = next((other for other in (name, *others) if other in small), None)
            if also:
                known[small.index(also)] = name
    return known, {name: kind for name, (_, kind) in zip(known, both, strict=True) if kind}


def declared(name: str) -> tuple[str, ColumnKind | None]:
    """A column's name, and its kind where `name` ends in one, as `speed:float` and `room:class` do."""
    before, _, kind = name.rpartition(":")
    for known in get_args(ColumnKind):
        if before.strip() and kind.strip().lower() == known:
            return before.strip(), known
    return name.strip(), None


def _declared_rows(rows: Rows) -> Rows:
    """The rows of a file that names the columns in each of them, without the kinds in these names."""
    known = {name: declared(name) for _, values in rows.numbered for name in values}
    numbered = [(row, {known[name][0]: value for name, value in values.items()}) for row, values in rows.numbered]
    return replace(rows, numbered=numbered, kinds={name: kind for name, kind in known.values() if kind})


def _looks_like_a_value(name: str) -> bool:
    return name.lstrip("+-")[:1].isdigit() or "/" in name or "\\" in name or has_video_ending(name)


def read_csv(path: str, text: str, *columns: str) -> Rows:
    """Rows of a separated text whose first line names the columns; all values are texts, spaces before them left out.

    Raises LayerlockError for odd quoting, a row of another length, a name that is there twice, and where a name of
    `columns` is missing.
    """
    separator, _ = _header(text)
    records = _csv_records(path, text, separator)
    _, fields = next(records, (1, []))
    names, kinds = _known(fields)
    _check_columns(path, names, columns)
    numbered: list[tuple[int, Mapping[str, str]]] = []
    rows = Rows(path=path, unit="line", numbered=numbered, kinds=kinds)
    for number, fields in records:
        if len(fields) != len(names):
            raise rows.problem(number, f"{len(fields)} fields; the first line names {len(names)} columns")
        numbered.append((number, dict(zip(names, fields, strict=True))))
    return rows


def read_jsonl(path: str, *columns: str) -> Rows:
    """Rows of a file with a json object in each line, every one with `columns`. Raises LayerlockError."""
    lines = enumerate(read_text(path).split("\n"), 1)
    numbered = [(number, _parsed(path, line, number)) for number, line in lines if line.strip()]
    return _checked_objects(Rows(path=path, unit="line", numbered=numbered), columns)


def read_json_list(path: str, *columns: str) -> Rows:
    """Rows of a json file that is a list of objects, every one with `columns`. Raises LayerlockError."""
    values = read_json(path)
    if not isinstance(values, list):
        raise LayerlockError(f"{path}: it is not a list of json objects with {' and '.join(columns)}")
    rows = Rows(path=path, unit="entry", numbered=list(enumerate(values, 1)))
    return _checked_objects(rows, columns)


def read_json(path: str) -> Any:
    """What a json file holds. Raises LayerlockError."""
    return _parsed(path, read_text(path), 1)


def read_parquet(path: str, *columns: str, optional: Iterable[str] = ()) -> Rows:
    """Rows of a parquet file: `columns`, those of `optional` that are there, and all whose name ends in a kind.

    Raises LayerlockError.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise LayerlockError(
            f"{path}: reading parquet needs pyarrow, which is not installed: pip install 'layerlock[parquet]'"
        ) from None
    try:
        known = {name: declared(name) for name in parquet.read_schema(path).names}
        _check_columns(path, [name for name, _ in known.values()], columns)
        wanted = [full for full, (name, kind) in known.items() if name in (*columns, *optional) or kind]
        values = parquet.read_table(path, columns=wanted).to_pylist()
    except (OSError, ArrowException) as error:
        raise LayerlockError(f"{path}: it cannot be read as parquet ({str(error).splitlines()[0]})") from None
    return _declared_rows(Rows(path=path, unit="row", numbered=list(enumerate(values, 1))))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LayerlockError(f"{path}: it cannot be read ({error.strerror})") from None


def _check_columns(path: str, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if name and count > 1:
            raise LayerlockError(f"{path}: {count} columns are called {name}")
    for column in wanted:
        if column not in names:
            raise LayerlockError(f"{path}: there is no column {column}; its columns are: {', '.join(names)}")


def _csv_records(path: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line in which each record begins, and its fields; blank lines are no records."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=True)
    begin = 1
    try:
        for fields in reader:
            if any(fields) or len(fields) > 1:
                yield begin, fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise LayerlockError(f"{path}, line {begin}: it is not valid csv ({error})") from None


def _checked_objects(rows: Rows, wanted: Sequence[str]) -> Rows:
    for number, values in rows.numbered:
        if not isinstance(values, dict):
            raise rows.problem(number, "it is not a json object")
    rows = _declared_rows(rows)
    for number, values in rows.numbered:
        for column in wanted:
            if column not in values:
                raise rows.problem(number, f"there is no {column}; its fields are: {', '.join(values) or 'nothing'}")
    return rows


def _parsed(path: str, text: str, line: int) -> Any:
    """The value of a json text that begins in a line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LayerlockError(f"{path}, line {line + error.lineno - 1}: it is not valid json ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise LayerlockError(f"{path}: it is not valid json ({error})") from None
