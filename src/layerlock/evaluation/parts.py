"""The three parts of a labelled data set: readouts are trained on one, chosen on another, tested on the third."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource
from layerlock.data.index import Index
from layerlock.errors import LayerlockError
from layerlock.evaluation.own_parts import own_parts

Stretch = tuple[int, int]
"""a part of a video: its first frame, and the one after its last"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Videos of a part; one of which several stretches are used is there several times."""

    index: Index
    stretches: tuple[Stretch, ...] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def source(self, clip: ClipConfig, seed: int, *, with_depth: bool) -> FolderSource:
        """Clips of the part."""
        return FolderSource(self.index, clip, seed, with_depth=with_depth, stretches=self.stretches)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All parts, with the same numbers for the same classes, and in words how they came about."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    layout: str
    how: str
    notes: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of videos that were found unusable before any clip was cut"""

    def fingerprint(self, clip: ClipConfig) -> str:
        """Sixteen hexadecimal digits of what is in the parts."""
        parts = (self.train, self.validation, self.test)
        told = [(p.source(clip, 0, with_depth=False).fingerprint, p.stretches, p.index.labels) for p in parts]
        return hashlib.blake2b(repr((told, self.classes)).encode(), digest_size=8).hexdigest()


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


def open_parts(data: str, test_data: str | None, cutting: Cutting, read: Callable[[str], Index]) -> Parts:
    """The parts of `data`, whose lists and folders are looked into by `read`.

    Parts that the data have are used: of three all; of two the second is tested on and a share of the first is what is
    chosen on. `test_data` replaces any test part. Raises LayerlockError where a part would be empty, where labels are
    missing, and where the test part has a class or a video that is not to be there.
    """
    places = own_parts(data)
    found = {role: read(place) for role, place in places.items()}
    if test_data is not None:
        found["test"] = read(test_data)
    if cutting.labelled:
        found = {role: index for role, index in found.items() if role == "train" or set(index.labels) != {-1}}
        found = {role: _labelled(index) for role, index in found.items()}
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    _check_apart(found)
    found = _same_classes(found) if cutting.labelled else found
    return _check(_assemble(found, cutting), cutting)


def _assemble(found: dict[str, Index], cutting: Cutting) -> Parts:
    train, told = found["train"], "the data's own parts"
    rejected = tuple(entry for index in found.values() for entry in index.rejected)
    facts = {"classes": train.classes, "layout": train.layout, "rejected": rejected}
    if len(found) == 3:
        parts = {role: Part(index=index) for role, index in found.items()}
        return Parts(**parts, **facts, how=told)  # type: ignore[arg-type]
    if "test" in found:
        rows, notes = _by_video(train, replace(cutting, test=0.0))
        share = f"validation is {cutting.validation:.0%} of the training part, by a hash of the seed and the name"
        parts = {role: Part(index=_subset(train, rows[role])) for role in ("train", "validation")}
        test = Part(index=found["test"])
        return Parts(**parts, test=test, **facts, how=f"its own training and test part; {share}", notes=notes)  # type: ignore[arg-type]
    if cutting.by == "time" or (cutting.by == "auto" and not cutting.labelled and len(train) < 3):
        parts = _by_time(train, cutting)
        how = "cut in time: the first frames of each video train, the last test, a clip's length apart"
        return Parts(**parts, **facts, how=how)  # type: ignore[arg-type]
    rows, notes = _by_video(train, cutting)
    parts = {role: Part(index=_subset(train, chosen)) for role, chosen in rows.items()}
    how = "cut by video, by a hash of the seed and the name" + ", class by class" * cutting.labelled
    return Parts(**parts, **facts, how=how, notes=notes)  # type: ignore[arg-type]


def _by_video(index: Index, cutting: Cutting) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Positions of the videos of each part, and what is odd about them.

    Of each class the share is rounded, but every class is in training, then in test, then in validation, as far as it
    has videos. Scans of one room (ScanNet's sceneXXXX_YY) stay together.
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
        f"{len(names)} classes have too few videos to be in the {role} part: {', '.join(names[:10])}"
        for role, names in scarce.items()
        if names
    )
    return {role: sorted(chosen) for role, chosen in rows.items()}, notes


def _members(index: Index, labelled: bool) -> dict[int, dict[str, list[int]]]:
    """By class (-1: all), positions of the videos by the name of what has to stay together."""
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (video, label) in enumerate(zip(index.videos, index.labels, strict=True)):
        name = os.path.relpath(video.path, index.root)
        scan = re.search(r"scene\d{4}(?=_\d\d)", name)
        found[label if labelled else -1][scan.group() if scan else name].append(row)
    return found


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()


def _by_time(index: Index, cutting: Cutting) -> dict[str, Part]:
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
        role: Part(index=_subset(index, [row for row, _ in chosen]), stretches=tuple(stretch for _, stretch in chosen))
        for role, chosen in found.items()
    }


def _windows(begin: int, end: int, span: int) -> Iterable[Stretch]:
    return ((at, at + span) for at in range(begin, end - span + 1, span))


def _subset(index: Index, rows: Sequence[int]) -> Index:
    videos = tuple(index.videos[row] for row in rows)
    labels = tuple(index.labels[row] for row in rows)
    return replace(index, videos=videos, labels=labels, rejected=())


def _labelled(index: Index) -> Index:
    """Without the videos that have no label, which are among the rejected then."""
    rows = [row for row, label in enumerate(index.labels) if label >= 0]
    bare = [video.path for video, label in zip(index.videos, index.labels, strict=True) if label < 0]
    if not rows:
        raise LayerlockError(
            f"{index.root} ({index.layout}): no video has a label; class folders, lists with labels, "
            "Something-Something and Kinetics lists have (docs/evaluation.md)"
        )
    return replace(_subset(index, rows), rejected=(*index.rejected, *((path, "it has no label") for path in bare)))


def _same_classes(found: dict[str, Index]) -> dict[str, Index]:
    """The other parts with the class numbers of the training part. LayerlockError for a class that it has not."""
    number_of = {name: number for number, name in enumerate(found["train"].classes)}
    for role, index in found.items():
        unseen = sorted({index.classes[label] for label in index.labels} - set(number_of))
        if unseen:
            raise LayerlockError(f"{index.root}: classes of the {role} part that no training video has: {unseen[:5]}")
        labels = tuple(number_of[index.classes[label]] for label in index.labels)
        found[role] = replace(index, labels=labels, classes=found["train"].classes)
    return found


def _check_apart(found: dict[str, Index]) -> None:
    role_of: dict[str, str] = {}
    for role, index in found.items():
        for video in index.videos:
            if role_of.setdefault(video.path, role) != role:
                raise LayerlockError(f"{video.path}: in the {role_of[video.path]} and in the {role} part")


def _check(parts: Parts, cutting: Cutting) -> Parts:
    for role, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if not len(part):
            raise LayerlockError(f"{parts.train.index.root}: no video is left for the {role} part ({parts.how})")
    if cutting.labelled:
        trained = set(parts.train.index.labels)
        for role, part in (("validation", parts.validation), ("test", parts.test)):
            unseen = sorted(parts.classes[label] for label in set(part.index.labels) - trained)
            if unseen:
                raise LayerlockError(
                    f"{part.index.root}: classes of the {role} part that no training video has: {', '.join(unseen[:5])}"
                )
    return parts
