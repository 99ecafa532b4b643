"""How a data set is cut into three splits where it does not bring any: by video or group of videos, or in time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from layerlock.data.index import Index
from layerlock.errors import LayerlockError
from layerlock.evaluation.splits.split import Split, Stretch, classes_of, group_of, values_of
from layerlock.evaluation.tasks.task import Target


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How splits are cut from data that have none."""

    by: str
    """auto, video or time"""
    validation: float
    test: float
    seed: int
    target: Target
    """what is read from the videos"""
    group: str | None = None
    """a regular expression that names groups (`group_videos`)"""
    shared: bool = False
    """whether a group may be in several splits that the data bring"""
    span: Callable[[float], int]
    """frames that a clip spans in a video of so many frames a second"""

    @property
    def labelled(self) -> bool:
        """Whether each video has a class, so that every class gets its share."""
        return self.target.kind == "class"

    def labels_of(self, index: Index) -> tuple[int, ...]:
        """The class of each video; -1 where there are none."""
        values = values_of(index, self.target) if self.labelled else (-1,) * len(index)
        return tuple(map(int, values))


def by_video(index: Index, cutting: Cutting) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Positions of the videos of each split, and what is odd about them.

    Groups (`Index.groups`) stay together, and so do links and copies of one file within a class. In the order of a
    hash, groups go to the test split, then to the validation split, where they bring the number of videos of each class
    nearer to its share; but every class is in training, then in test, then in validation, as far as it has groups.
    """
    units = sorted(_units(index, cutting), key=lambda unit: _hash(cutting.seed, unit.name))
    total = sum((unit.videos for unit in units), Counter[int]())
    rows: dict[str, list[int]] = {}
    notes = []
    for role, share in (("test", cutting.test), ("validation", cutting.validation)):
        wanted = {label: max(1, round(share * count)) for label, count in total.items()} if share else {}
        chosen = _choose(units, wanted)
        rows[role] = sorted(row for unit in chosen for row in unit.rows)
        missing = set(wanted) - {label for unit in chosen for label in unit.videos} - {-1}
        if missing:
            notes.append(_scarce(index, cutting, role, sorted(missing)))
        taken = set(chosen)
        units = [unit for unit in units if unit not in taken]
    rows["train"] = sorted(row for unit in units for row in unit.rows)
    return {role: rows[role] for role in ("train", "validation", "test")}, tuple(notes)


@dataclass(frozen=True, eq=False)
class _Unit:
    """Videos that stay together."""

    name: str
    rows: list[int]
    videos: Counter[int]
    """by class; -1: all"""


def _units(index: Index, cutting: Cutting) -> list[_Unit]:
    identities, labels = identities_of([index]), cutting.labels_of(index)
    members: dict[object, list[int]] = defaultdict(list)
    for row, (video, label) in enumerate(zip(index.videos, labels, strict=True)):
        members[group_of(index, row) or (label, identities[video.path])].append(row)
    return [
        _Unit(
            name=group_of(index, rows[0]) or min(os.path.relpath(index.videos[row].path, index.root) for row in rows),
            rows=rows,
            videos=Counter(labels[row] for row in rows),
        )
        for rows in members.values()
    ]


def _choose(units: Sequence[_Unit], wanted: Mapping[int, int]) -> list[_Unit]:
    """Units that bring the number of videos of each class near to `wanted`, never the last one of a class."""
    chosen: dict[_Unit, None] = {}
    left = Counter(label for unit in units for label in unit.videos)
    lacking = Counter(wanted)

    def spare(unit: _Unit) -> bool:
        return unit not in chosen and all(left[label] > 1 for label in unit.videos)

    def gain(unit: _Unit) -> int:
        return sum(abs(lacking[label]) - abs(lacking[label] - count) for label, count in unit.videos.items())

    def take(unit: _Unit) -> None:
        chosen[unit] = None
        lacking.subtract(unit.videos)
        left.subtract(dict.fromkeys(unit.videos, 1))

    for unit in units if wanted else ():
        if spare(unit) and gain(unit) > 0:
            take(unit)
    for label, count in wanted.items():
        possible = [unit for unit in units if label in unit.videos and spare(unit)] if lacking[label] == count else []
        if possible:
            take(max(possible, key=gain))
    return list(chosen)


def _scarce(index: Index, cutting: Cutting, role: str, labels: Sequence[int]) -> str:
    """What is to be said of classes that are not in a split."""
    told, names, labels_v = [], classes_of(index, cutting.target), cutting.labels_of(index)
    for label in labels:
        rows = [row for row, own in enumerate(labels_v) if own == label]
        groups = {group_of(index, row) or row for row in rows}
        whole = f" (its {len(rows)} videos are of {_counted(len(groups), 'group')})" if len(groups) < len(rows) else ""
        told.append(names[label] + whole)
    what = "groups" if any("(" in text for text in told) else "videos"
    return f"classes with too few {what} to be in the {role} split, {len(told)}: {', '.join(told[:10])}"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def identities_of(indices: Iterable[Index]) -> dict[str, object]:
    """What tells each file or folder from others, by path: links to one file are one, and so are copies of it."""
    videos = {video.path: video for index in indices for video in index.videos}
    identities = {path: _identity(path) for path in videos}
    alike: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for path, video in videos.items():
        alike[video.bytes, video.frames, video.width, video.height].add(path)
    for facts, paths in alike.items():
        if facts[0] and len({identities[path] for path in paths}) > 1:
            identities |= {path: _content(path) or identities[path] for path in paths}
    return identities


def _identity(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _content(path: str) -> str:
    """A digest of a file; empty of a folder."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return ""


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()


def by_time(index: Index, cutting: Cutting) -> dict[str, Split]:
    """The first frames of each video to train on, then windows of one clip each to choose and to test on."""
    stretches: dict[str, list[tuple[int, Stretch]]] = {"train": [], "validation": [], "test": []}
    for row, video in enumerate(index.videos):
        span, frames = cutting.span(video.fps), video.frames
        test = frames - max(span, round(cutting.test * frames))
        validation = test - span - max(span, round(cutting.validation * frames))
        if validation - span < span:
            raise LayerlockError(
                f"{video.path}: {frames} frames are too few to be cut in time for clips that span {span}; "
                f"at least {5 * span} are needed"
            )
        stretches["train"].append((row, (0, validation - span)))
        stretches["validation"] += [(row, window) for window in _windows(validation, test - span, span)]
        stretches["test"] += [(row, window) for window in _windows(test, frames, span)]
    return {
        role: Split(index=index.take([row for row, _ in chosen]), stretches=tuple(stretch for _, stretch in chosen))
        for role, chosen in stretches.items()
    }


def _windows(begin: int, end: int, span: int) -> Iterable[Stretch]:
    return ((at, at + span) for at in range(begin, end - span + 1, span))
