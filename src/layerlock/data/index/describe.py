"""What an index holds, in lines to read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from layerlock.data.index import Index
from layerlock.data.index.listing import printable

_LINES = 20
"""at most so many lines of one kind"""

_RATES = (23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0)
"""frames a second that cameras and broadcasters use"""


def describe(index: Index) -> str:
    """Layout, number and length of the videos, and what they are like; every file that cannot be used."""
    hours = sum(video.seconds for video in index.videos) / 3600
    lines = [
        f"layout    {printable(index.layout)}",
        f"usable    {len(index):,}",
        f"rejected  {len(index.rejected):,}",
        f"length    {hours:,.2f} hours" + (f" ({hours * 60:.1f} minutes)" if hours < 1 else ""),
        *_counted("codecs", (video.codec for video in index.videos)),
        *_counted("frames a second", (_rate(video.fps) for video in index.videos)),
        *_counted("width x height", (f"{video.width} x {video.height}" for video in index.videos)),
        *_targets(index),
        *describe_rejected(index.rejected),
    ]
    return "\n".join(lines)


def describe_rejected(rejected: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each file that cannot be used, below a heading; nothing where there is none."""
    lines = [f"  {printable(f'{path}: {reason}')}" for path, reason in rejected]
    return ["cannot be used", *lines] if lines else []


def _counted(title: str, values: Iterable[str]) -> Iterator[str]:
    """The values and how many videos have each, most first."""
    return _table(title, Counter(values).most_common())


def _targets(index: Index) -> Iterator[str]:
    """Of each target its classes, by number, with how many videos each has, or the range of its values."""
    for name, column in index.targets.items():
        known = [value for value in column.values if not math.isnan(value)]
        if column.classes is None:
            yield f"{printable(name)}: numbers"
            if known:
                yield f"{len(known):10,}  {min(known):g} to {max(known):g}, mean {sum(known) / len(known):g}"
            if len(known) < len(index):
                yield f"{len(index) - len(known):10,}  without a number"
        elif column.classes:
            count_of = Counter(column.values)
            rows = [(each, count_of[number]) for number, each in enumerate(column.classes)]
            yield from _table(f"{printable(name)}: {_classes(len(rows))}", rows)
            if count_of[-1]:
                yield f"{count_of[-1]:10,}  without a class"


def _classes(count: int) -> str:
    return f"{count:,} class{'es' * (count != 1)}"


def _table(title: str, rows: list[tuple[str, int]]) -> Iterator[str]:
    yield title
    shown = len(rows) if len(rows) <= _LINES else _LINES - 1
    for name, count in rows[:shown]:
        yield f"{count:10,}  {printable(name)}"
    if rows[shown:]:
        yield f"{sum(count for _, count in rows[shown:]):10,}  in {len(rows) - shown:,} others"


def _rate(fps: float) -> str:
    """A usual rate by its name, others to the nearest whole number; 29.97 and 30 stay apart."""
    near = min((*_RATES, float(round(fps))), key=lambda rate: abs(rate - fps))
    if abs(near - fps) <= 2e-4 * near:
        return f"{near:g}"
    return f"about {fps:.0f}" if fps >= 1 else "below 1"
