"""Which videos of a data set are not independent of each other: clips of one recording, scans of one room, one subject.

What a group is, is declared by a regular expression or by a column `group` of the list; without either, names as known
data sets have them are read. Groups stay together when splits are cut, and intervals are taken over them.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from layerlock.data.index import Index
from layerlock.errors import LayerlockError
from layerlock.evaluation.splits.own import ROLES

KNOWN = {
    "UCF101": (r"(?:^|/)(v_[^/]+_g\d+)_c\d+(?:\.\w+)?$",),
    "HMDB51": (
        r"(?:^|/)(?P<label>[^/]+)/(?P<group>[^/]+?)_(?P=label)_[fhlu]_[cn]m_np\d+_\w\w_\w+_\d+(?:\.\w+)?$",
        r"(?:^|/)([^/]+)_[fhlu]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:goo|med|bad)_\d+(?:\.\w+)?$",
    ),
    "KTH": (r"(?:^|/)(person\d+)_[a-z]+_d\d(?:_\w+)?(?:\.\w+)?$",),
    "NTU RGB+D": (r"(?:^|/)S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}[^/]*$",),
    "ScanNet": (r"(?:^|/)(scene\d{4})_\d\d",),
    "7-Scenes": (r"(?:^|/)([^/]+)/seq-?\d+(?:[/.].*)?$",),
    "Kinetics": (r"(?:^|/)([^/]+)_\d{6}_\d{6}(?:\.\w+)?$",),
    "numbered pieces": (r"(?:^|/)([^/]+?)[-_. ]*(?:part|pt|piece|chunk|segment|seg|shot)[-_. ]*\d+(?:\.\w+)?$",),
}
"""patterns by the data set whose names they are; the group is `group`, else the first of a pattern"""
NUMBERED = re.compile(r"(?P<group>[^/]*[^/\W_])[-_. ]+(?P<number>\d{1,6})(?:\.\w+)?$")
"""`kitchen_003.mp4`: what may be a piece of a recording, or a video with a number"""

NONE = "none: videos are treated as independent"

SHOWN = 5
"""names in a message"""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Indices of all splits with their `groups`, how those were made, and what to note."""

    indices: dict[str, Index]
    how: str
    notes: tuple[str, ...] = ()


def place(index: Index, row: int) -> str:
    """The path of a video below the folder of its data, with slashes: what names of groups are read from."""
    return os.path.relpath(index.videos[row].path, index.root).replace(os.sep, "/")


def group_videos(indices: Mapping[str, Index], pattern: str | None) -> Grouping:
    """The groups of the videos of all splits, by `pattern`, else by their lists, else by known names.

    A pattern is searched for in the path below the data's folder; its first group, or all that matched, is the name.
    Raises LayerlockError where it matches none.
    """
    if pattern is not None:
        return _declared(indices, re.compile(pattern))
    if any(any(index.groups) for index in indices.values()):
        return _listed(indices)
    return _known(indices)


def _declared(indices: Mapping[str, Index], pattern: re.Pattern[str]) -> Grouping:
    names = {role: [_matched(pattern, path) for path in _places(index)] for role, index in indices.items()}
    count, total = sum(map(bool, _all(names))), sum(map(len, names.values()))
    if not count:
        first = ", ".join([path for index in indices.values() for path in _places(index)][:SHOWN])
        raise LayerlockError(f"group: {pattern.pattern!r} is in none of {total} names: {first}")
    notes = _alone(indices, names, f"do not match {pattern.pattern!r}")
    return Grouping(indices=_with(indices, names), how=f"--group {pattern.pattern}", notes=notes)


def _listed(indices: Mapping[str, Index]) -> Grouping:
    names = {role: list(index.groups or [""] * len(index)) for role, index in indices.items()}
    how = "the column group of the list"
    return Grouping(indices=_with(indices, names), how=how, notes=_alone(indices, names, "have no group in the list"))


def _known(indices: Mapping[str, Index]) -> Grouping:
    of: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for role, index in indices.items():
        names[role] = []
        for path in _places(index):
            data, name = _known_name(path, index)
            names[role].append(name)
            of[data] += bool(name)
    if of.total():
        how = f"names as in {', '.join(data for data, count in of.most_common() if count)}"
        return Grouping(indices=_with(indices, names), how=how, notes=_alone(indices, names, "have no such name"))
    names, sure = _numbered(indices)
    if not any(_all(names)):
        return Grouping(indices=_with(indices, names), how=NONE)
    most = Counter(filter(None, _all(names))).most_common(SHOWN)
    told = ", ".join(f"{name} ({count} videos)" for name, count in most)
    if sure:
        how = f"names that count the pieces of a recording: {told}"
        return Grouping(indices=_with(indices, names), how=how, notes=_alone(indices, names, "have no such name"))
    hint = (
        f"! these names look like groups: {told}; pass --group '([^/]+)[-_. ]+\\d+' or the like where videos of one "
        "name are not independent, --group '.+' where they are"
    )
    alone = {role: [""] * len(index) for role, index in indices.items()}
    return Grouping(indices=_with(indices, alone), how=NONE, notes=(hint,))


def _known_name(path: str, index: Index) -> tuple[str, str]:
    """The data set whose names are like this one, and the group; ("", "") where there is none."""
    if path.startswith("seq-"):  # one room of 7-Scenes by itself
        path = f"{_room(index.root)}/{path}"
    for data, patterns in KNOWN.items():
        for pattern in patterns:
            if name := _matched(re.compile(pattern), path):
                return data, name
    return "", ""


def _room(root: str) -> str:
    """The name of the folder of a room, above one that is called after its split."""
    above, name = os.path.split(root)
    return os.path.basename(above) if any(re.fullmatch(words, name.lower()) for words in ROLES.values()) else name


def _matched(pattern: re.Pattern[str], path: str) -> str:
    """The name of a group: `group`, else the first group, else all that matched; empty where there is none."""
    match = pattern.search(path)
    if match is None:
        return ""
    if "group" in pattern.groupindex:
        return match["group"] or ""
    return (match[1] if pattern.groups else match[0]) or ""


def _numbered(indices: Mapping[str, Index]) -> tuple[dict[str, list[str]], bool]:
    """Names before a number that several videos have, and whether they surely are recordings in pieces.

    They are where each counts from 0 or 1 without a gap and no class is one name. Where every class, or all data, has
    one name only, the numbers are those of videos.
    """
    matches = {role: [NUMBERED.search(path) for path in _places(index)] for role, index in indices.items()}
    numbers: dict[str, list[int]] = defaultdict(list)
    names_of: dict[int, list[str]] = defaultdict(list)
    for role, index in indices.items():
        for label, match, path in zip(index.labels, matches[role], _places(index), strict=True):
            names_of[label].append(match["group"] if match else path)
            if match:
                numbers[match["group"]].append(int(match["number"]))
    several = {name for name, at in numbers.items() if len(at) > 1}
    if all(len(set(names)) < 2 for names in names_of.values()):
        several = set()
    counted = all(sorted(at) in (list(range(len(at))), list(range(1, len(at) + 1))) for at in numbers.values())
    sure = counted and all(len(set(names)) > 1 for names in names_of.values() if len(names) > 1)
    named = {
        role: [match["group"] if match and match["group"] in several else "" for match in of_split]
        for role, of_split in matches.items()
    }
    return named, sure


def check_apart(indices: Mapping[str, Index], *, allowed: bool) -> tuple[str, ...]:
    """Raises LayerlockError for groups that are in two splits; where that is allowed, says so."""
    role_of: dict[str, set[str]] = defaultdict(set)
    for role, index in indices.items():
        for name in filter(None, index.groups):
            role_of[name].add(role)
    shared = {name: roles for name, roles in role_of.items() if len(roles) > 1}
    if not shared:
        return ()
    told = ", ".join(f"{name} ({' and '.join(sorted(roles))})" for name, roles in sorted(shared.items())[:SHOWN])
    said = f"{len(shared)} of {len(role_of)} groups are in several splits: {told}"
    if not allowed:
        raise LayerlockError(
            f"{said}; test videos would leak into training. Remove them from one split, declare groups with --group, "
            "or pass --shared-groups allow"
        )
    return (f"! {said}",)


def _places(index: Index) -> list[str]:
    return [place(index, row) for row in range(len(index))]


def _all(names: Mapping[str, Sequence[str]]) -> Iterable[str]:
    return (name for split in names.values() for name in split)


def _with(indices: Mapping[str, Index], names: Mapping[str, Sequence[str]]) -> dict[str, Index]:
    return {role: replace(index, groups=tuple(names[role])) for role, index in indices.items()}


def _alone(indices: Mapping[str, Index], names: Mapping[str, Sequence[str]], why: str) -> tuple[str, ...]:
    """What is to be said of videos without a group where others have one."""
    alone = [
        path
        for role, index in indices.items()
        for path, name in zip(_places(index), names[role], strict=True)
        if not name
    ]
    total = sum(map(len, names.values()))
    if not alone:
        return ()
    return (f"{len(alone)} of {total} names {why}, and count as a group each: {', '.join(alone[:SHOWN])}",)
