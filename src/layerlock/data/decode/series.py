"""Which pictures of a folder are the frames of one video, by their names: those of a series differ only in a number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

_NUMBER = re.compile(
    r"(?:19|20)\d\d([-_.])[01]\d\1[0-3]\d(?:[-_ T.]+[0-2]\d[-_.:]?[0-5]\d[-_.:]?[0-5]\d(?:[.,]\d+)?)?"  # date, time
    r"|^\d+\.\d+$"  # seconds
    r"|[0-9]+"
)


@dataclass(frozen=True)
class Series:
    """Pictures whose names differ in a number: `img_*` are `img_1`, `img_2`, `img_0010`."""

    pattern: str
    names: tuple[str, ...]
    """in natural order, without their endings"""


def find_series(names: Iterable[str]) -> tuple[list[Series], list[str]]:
    """The series among names without endings, sorted by pattern, and the names that are in none, sorted.

    Where names have several numbers, those of which each comes with the same frames are names of series: `cam1_0001`,
    `cam2_0001` are two, `part1_0001`, `part2_0002` one. Raises ValueError, in words, where two names of a series have
    one number.
    """
    by_text: dict[tuple[str, ...], list[_Name]] = {}
    for name in map(_Name.of, names):
        by_text.setdefault(name.text, []).append(name)
    series, alone = [], []
    for group in by_text.values():
        for members in _split(group):
            if len(members) == 1:
                alone.append(members[0].whole)
            else:
                members.sort(key=lambda name: (name.numbers, name.whole))
                _check_numbers(members)
                series.append(Series(_pattern(members), tuple(name.whole for name in members)))
    return sorted(series, key=lambda one: one.pattern), sorted(alone)


@dataclass(frozen=True)
class _Name:
    whole: str
    parts: tuple[str, ...]
    """in turns what is no number and a number, as written"""
    text: tuple[str, ...]
    """what is no number, in small letters"""
    numbers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, name: str) -> _Name:
        parts, end = [], 0
        for number in _NUMBER.finditer(name):
            parts += [name[end : number.start()], number[0]]
            end = number.end()
        parts.append(name[end:])
        numbers = tuple(tuple(map(int, re.findall(r"\d+", part))) for part in parts[1::2])
        return cls(name, tuple(parts), tuple(part.lower() for part in parts[::2]), numbers)


def _split(names: Sequence[_Name]) -> list[list[_Name]]:
    """Names of one text as the series that they are."""
    columns = range(len(names[0].numbers))
    values = [len({name.numbers[column] for name in names}) for column in columns]
    varying = [column for column in columns if values[column] > 1]
    if len(varying) < 2:
        return [list(names)]
    frame = max(varying, key=lambda column: (values[column], column))

    def others(name: _Name) -> tuple[tuple[int, ...], ...]:
        return tuple(name.numbers[column] for column in varying if column != frame)

    groups = [list(group) for _, group in groupby(sorted(names, key=others), key=others)]
    second = sorted(map(len, groups))[-2] if len(groups) > 1 else 0
    again = len(names) - values[frame]
    return groups if again and 2 * again >= second else [list(names)]


def _pattern(names: Sequence[_Name]) -> str:
    """The first name with a star for each number that is not the same in all."""
    first = names[0]
    same = [len({name.numbers[column] for name in names}) == 1 for column in range(len(first.numbers))]
    return "".join("*" if place % 2 and not same[place // 2] else part for place, part in enumerate(first.parts))


def _check_numbers(names: Sequence[_Name]) -> None:
    number, count = Counter(name.numbers for name in names).most_common(1)[0]
    if count > 1:
        twins = [name.whole for name in names if name.numbers == number]
        raise ValueError(" and ".join(sorted(twins)[:2]))
