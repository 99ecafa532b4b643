"""How a data set is cut into three parts where it does not bring any: by video, or in time."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource, video_name
from layerlock.data.index import Index
from layerlock.errors import LayerlockError

Stretch = tuple[int, int]
"""a part of a video: its first frame, and the one after its last"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Videos of a part; one of which several stretches are used is there several times."""

    index: Index
    stretches: tuple[Stretch, ...] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def name(self, row: int) -> str:
        """What the video at a position is called, with the frames of its stretch."""
        return video_name(self.index, row, self.stretches)

    def source(self, clip: ClipConfig, seed: int, *, with_depth: bool) -> FolderSource:
        """Clips of the part."""
        return FolderSource(self.index, clip, seed, with_depth=with_depth, stretches=self.stretches)


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How parts are cut from data that have none."""

    by: str
    """auto, video or time"""
    validation: float
    test: float
    seed: int
    labelled: bool
    span: Callable[[float], int]
    """frames that a clip spans in a video of so many frames a second"""


def by_video(index: Index, cutting: Cutting) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Positions of the videos of each part, and what is odd about them.

    Of each class the share is rounded, but every class is in training, then in test, then in validation, as far as it
    has videos. Scans of one room (ScanNet's sceneXXXX_YY) stay together, and so do links to one file within a class.
    """
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    scarce: dict[str, list[str]] = {"test": [], "validation": []}
    for label, members in sorted(_members(index, cutting.labelled).items()):
        groups = sorted(members, key=lambda name: _hash(cutting.seed, name))
        n = len(groups)
        test = min(max(1, round(cutting.test * n)), n - 1) if cutting.test else 0
        validation = max(0, min(max(1, round(cutting.validation * n)), n - test - 1))
        ends = {"test": test, "validation": test + validation, "train": n}
        begin = 0
        for role, end in ends.items():
            rows[role] += [row for name in groups[begin:end] for row in members[name]]
            begin = end
        for role, count in (("test", test), ("validation", validation)):
            if not count and label >= 0 and (role != "test" or cutting.test):
                scarce[role].append(index.classes[label])
    notes = tuple(
        f"classes with too few videos to be in the {role} part, {len(names)}: {', '.join(names[:10])}"
        for role, names in scarce.items()
        if names
    )
    return {role: sorted(chosen) for role, chosen in rows.items()}, notes


def _members(index: Index, labelled: bool) -> dict[int, dict[str, list[int]]]:
    """By class (-1: all), positions of the videos by the name of what has to stay together."""
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    keys: list[tuple[int, object]] = []
    names: dict[tuple[int, object], str] = {}
    for video, label in zip(index.videos, index.labels, strict=True):
        name = os.path.relpath(video.path, index.root)
        scan = re.search(r"scene\d{4}(?=_\d\d)", name)
        name = scan.group() if scan else name
        keys.append((label if labelled else -1, identity(video.path)))
        names[keys[-1]] = min(name, names.get(keys[-1], name))
    for row, key in enumerate(keys):
        found[key[0]][names[key]].append(row)
    return found


def identity(path: str) -> object:
    """What tells a file or folder from others, by whatever link it is reached."""
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()


def by_time(index: Index, cutting: Cutting) -> dict[str, Part]:
    """The first frames of each video to train on, then windows of one clip each to choose and to test on."""
    found: dict[str, list[tuple[int, Stretch]]] = {"train": [], "validation": [], "test": []}
    for row, video in enumerate(index.videos):
        span, frames = cutting.span(video.fps), video.frames
        test = frames - max(span, round(cutting.test * frames))
        validation = test - span - max(span, round(cutting.validation * frames))
        if validation - span < span:
            raise LayerlockError(
                f"{video.path}: {frames} frames are too few to be cut in time for clips that span {span}; "
                f"at least {5 * span} are needed"
            )
        found["train"].append((row, (0, validation - span)))
        found["validation"] += [(row, window) for window in _windows(validation, test - span, span)]
        found["test"] += [(row, window) for window in _windows(test, frames, span)]
    return {
        role: Part(index=subset(index, [row for row, _ in chosen]), stretches=tuple(stretch for _, stretch in chosen))
        for role, chosen in found.items()
    }


def _windows(begin: int, end: int, span: int) -> Iterable[Stretch]:
    return ((at, at + span) for at in range(begin, end - span + 1, span))


def subset(index: Index, rows: Sequence[int]) -> Index:
    """The videos at some positions, with their labels; nothing of what was rejected."""
    videos = tuple(index.videos[row] for row in rows)
    labels = tuple(index.labels[row] for row in rows)
    return replace(index, videos=videos, labels=labels, rejected=())
