"""From the records of shards, one at a time, to the table of them all: memory does not grow with the videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layerlock.data.index.columns import Wanted, number, read_column
from layerlock.data.index.rows import Entry, Rows
from layerlock.data.index.shards.contents import Cell
from layerlock.data.index.shards.record import Record
from layerlock.data.index.shards.table import COLUMNS, VERSION, create_table, text_of
from layerlock.data.targets import LABEL, Column, ColumnKind
from layerlock.errors import LayerlockError
from layerlock.files import write_whole

GROUP = "group"
"""the field that says what a video belongs to"""

_MOST_CODECS = 256


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target that a pack was written with."""

    kind: ColumnKind
    classes: tuple[str, ...] | None


@dataclass
class _Cells:
    """Different values of a field, each with the first video that has it, counted from 1."""

    name: str
    all_fractions: bool
    first: dict[Cell, int] = field(default_factory=dict)
    fraction: bool = False

    def add(self, cell: Cell, row: int) -> None:
        """Of numbers that are no classes one is enough to tell the kind."""
        if isinstance(cell, float) and not cell.is_integer() and not self.all_fractions:
            if self.fraction:
                return
            self.fraction = True
        self.first.setdefault(cell, row)

    def column(self, rows: Rows, wanted: Any, classes: Sequence[str] | None) -> tuple[Column, dict[Cell, float]]:
        """The column of these values, and what each becomes."""
        entries = [Entry(row, rows.path, {self.name: cell}) for cell, row in self.first.items()]
        column = read_column(rows, entries, self.name, wanted, classes)
        return column, dict(zip(self.first, column.values, strict=True))


def write_table(
    path: Path,
    shards: Sequence[tuple[str, int]],
    record: Callable[[int], Record],
    *,
    data: str,
    wanted: Wanted,
    earlier: Wanted,
    packed: Mapping[str, Target],
) -> None:
    """Writes the table of shards (name, bytes), whose records `record` gives by number; it is called twice for each.

    Targets are those of `packed`, `label`, those `wanted` and, where they are there, those of `earlier`. Raises
    LayerlockError for a column that is not there or not of its kind, OSError where the file cannot be written.
    """
    facts = _Facts(shards, data, {**earlier, **wanted}, packed)
    for place, (name, _) in enumerate(shards):
        facts.add(record(place), name)
    facts.check(wanted)
    facts.settle()
    write_whole(path, lambda part: _write(part, facts, record))


class _Facts:
    """What has to be known before the first row is written."""

    def __init__(
        self, shards: Sequence[tuple[str, int]], data: str, wanted: Wanted, packed: Mapping[str, Target]
    ) -> None:
        self.shards, self.wanted, self.packed = shards, wanted, packed
        self.rows = Rows(
            path=data, unit="video", numbered=(), kinds={name: target.kind for name, target in packed.items()}
        )
        names = dict.fromkeys((LABEL, *packed, *wanted))
        kinds = {name: self.rows.kinds.get(name) or wanted.get(name) for name in names}
        self.cells = {name: _Cells(name, all_fractions=kinds[name] == "class") for name in names}
        self.firsts: list[int] = []
        self.videos = self.letters = 0
        self.codecs: dict[str, int] = {}
        self.fields: dict[str, None] = {}
        self.rejected: list[tuple[str, str]] = []
        self._total = hashlib.blake2b(digest_size=8)

    def add(self, record: Record, shard: str) -> None:
        """Takes in what is in the next shard."""
        self.firsts.append(self.videos)
        self._total.update(shard.encode(errors="surrogateescape") + record.digest)
        self.rejected += [(f"{shard}/{name}" if name else shard, reason) for name, reason in record.rejected]
        for name, video, fields in record.videos:
            self.videos += 1
            self.letters += len(text_of(name, video, str(fields.get(GROUP, ""))))
            self.codecs.setdefault(video.codec, len(self.codecs))
            self.fields |= dict.fromkeys(fields)
            for target, cells in self.cells.items():
                if target in fields:
                    cells.add(fields[target], self.videos)

    def check(self, wanted: Wanted) -> None:
        """Raises LayerlockError for a column that is wanted and not there, and for what the file cannot hold."""
        if len(self.codecs) > _MOST_CODECS:
            raise LayerlockError(f"{self.rows.path}: videos of more than {_MOST_CODECS} codecs")
        for name in wanted:
            if name not in self.fields and name != LABEL and name not in self.packed:
                there = ", ".join(self.fields) or "nothing"
                raise LayerlockError(
                    f"{self.rows.path}: there is no column {name}; the json of the videos has: {there}"
                )

    def settle(self) -> None:
        """Makes columns of the values."""
        there = [name for name, cells in self.cells.items() if cells.first or name in self.packed]
        self.columns: dict[str, Column] = {}
        self.becomes: dict[str, dict[Cell, float]] = {}
        for name in there:
            classes = self.packed[name].classes if name in self.packed else None
            self.columns[name], self.becomes[name] = self.cells[name].column(self.rows, self.wanted.get(name), classes)

    def about(self) -> dict[str, Any]:
        """What stands in the head of the file."""
        return {
            "version": VERSION,
            "digest": self._total.hexdigest(),
            "videos": self.videos,
            "shards": [[name, size, first] for (name, size), first in zip(self.shards, self.firsts, strict=True)],
            "codecs": list(self.codecs),
            "targets": {name: column.classes for name, column in self.columns.items()},
            "asked": {name: self.wanted.get(name) for name in self.cells},
            "groups": GROUP in self.fields,
        }


def _write(part: Path, facts: _Facts, record: Callable[[int], Record]) -> None:
    rejected = json.dumps(facts.rejected).encode()
    counts = dict.fromkeys(COLUMNS, facts.videos)
    kinds = {name: "I32" if column.kind == "class" else "F64" for name, column in facts.columns.items()}
    types = COLUMNS | {f"target.{name}": kind for name, kind in kinds.items()}
    types |= {"codec": "U8", "text": "U8", "rejected": "U8"}
    counts |= dict.fromkeys(types.keys() - counts, facts.videos) | {"text": facts.letters, "rejected": len(rejected)}
    arrays = create_table(part, facts.about(), types, counts)
    arrays["rejected"][:] = np.frombuffer(rejected, np.uint8)
    letters = 0
    for shard, first in enumerate(facts.firsts):
        letters = _fill(arrays, facts, record(shard), first, letters)


def _fill(arrays: Mapping[str, np.ndarray], facts: _Facts, record: Record, first: int, letters: int) -> int:
    """Writes the rows of a shard from row `first` on; returns where its texts end, which begin at `letters`."""
    videos = [video for _, video, _ in record.videos]
    rows = slice(first, first + len(videos))
    texts = [text_of(name, video, str(fields.get(GROUP, ""))) for name, video, fields in record.videos]
    text = b"".join(texts)
    arrays["text"][letters : letters + len(text)] = np.frombuffer(text, np.uint8)
    arrays["end"][rows] = letters + np.cumsum([len(each) for each in texts], dtype=np.int64)
    arrays["begin"][rows] = [video.span.begin for video in videos if video.span]
    arrays["codec"][rows] = [facts.codecs[video.codec] for video in videos]
    for name in COLUMNS.keys() - {"end", "begin"}:
        arrays[name][rows] = [getattr(video, name) for video in videos]
    for name, column in facts.columns.items():
        cells = [fields.get(name) for _, _, fields in record.videos]
        arrays[f"target.{name}"][rows] = [_value(cell, column, facts.becomes[name]) for cell in cells]
    return letters + len(text)


def _value(cell: Cell | None, column: Column, becomes: Mapping[Cell, float]) -> float:
    if cell is None:
        return -1 if column.kind == "class" else float("nan")
    return becomes[cell] if cell in becomes else float(number(cell) or 0)
