"""The three parts of a labelled data set: readouts are trained on one, chosen on another, tested on the third."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from layerlock.data import ClipConfig
from layerlock.data.index import Index
from layerlock.data.index.cache import contents_of
from layerlock.errors import LayerlockError
from layerlock.evaluation.cutting import Cutting, Part, by_time, by_video, identities_of, subset
from layerlock.evaluation.groups import Grouping, check_apart, group_videos
from layerlock.evaluation.own_parts import own_parts


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All parts, with the same numbers for the same classes, and in words how they came about."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    layout: str
    how: str
    grouping: str = ""
    """in words, what was taken for a group of videos that are not independent"""
    notes: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of videos that were found unusable before any clip was cut"""

    def check_pairs(self) -> None:
        """Raises LayerlockError where no two videos of a part of retrieval have a class in common."""
        for role, parts in (("training and validation", (self.train, self.validation)), ("test", (self.test,))):
            pairs = [pair for part in parts for pair in zip(part.index.labels, part.groups, strict=True)]
            groups = Counter(label for label, _ in set(pairs))
            if max(groups.values()) < 2:
                raise LayerlockError(
                    f"{self.test.index.root}: nothing to retrieve among {len(pairs)} videos of the {role} part: no two "
                    "are of one class and of different groups (--test-share says how many are tested on)"
                )

    def fingerprints(self, clip: ClipConfig, *, with_depth: bool) -> dict[str, str]:
        """Sixteen hexadecimal digits each of the videos in the parts, of what is read from them, labels or depth, and
        of their groups.
        """
        parts = (self.train, self.validation, self.test)
        videos = [(part.source(clip, 0, with_depth=False).fingerprint, part.stretches) for part in parts]
        depths = [contents_of(path) for part in parts for path in part.depths] if with_depth else []
        groups = [part.index.groups for part in parts]
        told = {"videos": videos, "targets": [[part.index.labels for part in parts], self.classes, depths]}
        return {
            f"{name} of the data": hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
            for name, facts in (told | {"groups": groups}).items()
        }


def open_parts(data: str, test_data: str | None, cutting: Cutting, read: Callable[[str], Index]) -> Parts:
    """The parts of `data`, whose lists and folders are looked into by `read`.

    Parts that the data have are used: of three all; of two the second is tested on and a share of the first is what is
    chosen on. `test_data` replaces any test part. Raises LayerlockError where a part would be empty, where labels are
    missing, where the test part has a class or a video that is not to be there, and where a group is in two parts.
    """
    places = own_parts(data)
    found = {role: read(place) for role, place in places.items()}
    if test_data is not None:
        found["test"] = read(test_data)
    if cutting.labelled:
        asked = {"train"} if test_data is None else {"train", "test"}
        found = {role: index for role, index in found.items() if role in asked or set(index.labels) != {-1}}
        found = {role: _labelled(index) for role, index in found.items()}
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    grouping = group_videos(found, cutting.group)
    found, notes = grouping.found, grouping.notes
    if len(found) > 1:
        _check_apart(found)
        notes += check_apart(found, allowed=cutting.shared)
    found = _same_classes(found) if cutting.labelled else found
    parts = _check(_assemble(found, cutting, grouping), cutting)
    return replace(parts, grouping=grouping.how, notes=notes + parts.notes + _short_videos(found, cutting))


def _assemble(found: dict[str, Index], cutting: Cutting, grouping: Grouping) -> Parts:
    train, told = found["train"], "the data's own parts"
    rejected = tuple(entry for index in found.values() for entry in index.rejected)
    empty = _empty_classes(train) if cutting.labelled else ()
    if "test" in found and cutting.by == "time":
        raise LayerlockError(f"split: {train.root} has a test part beside it; what has none is cut in time")
    facts = {"classes": train.classes, "layout": train.layout, "rejected": rejected}
    if len(found) == 3:
        parts = {role: Part(index=index) for role, index in found.items()}
        return Parts(**parts, **facts, how=told, notes=empty)  # type: ignore[arg-type]
    if "test" in found:
        rows, notes = by_video(train, replace(cutting, test=0.0))
        share = f"validation is {cutting.validation:.0%} of the training part, by a hash of the seed and the name"
        parts = _apart(train, {role: rows[role] for role in ("train", "validation")})
        test = Part(index=found["test"])
        return Parts(**parts, test=test, **facts, how=f"its own training and test part; {share}", notes=empty + notes)  # type: ignore[arg-type]
    groups = set(Part(index=train).groups)
    if cutting.by == "time" or (cutting.by == "auto" and not cutting.labelled and len(groups) < 3):
        parts = by_time(train, cutting)
        how = (
            "cut in time: the first frames of each video train, the last test, a clip's length apart, and each clip to "
            "test on counts as a video"
        )
        return Parts(**parts, **facts, how=how, notes=empty)  # type: ignore[arg-type]
    if len(groups) == 1 and len(train) > 1:
        raise LayerlockError(
            f"{train.root}: all {len(train)} videos are of one group, {groups.pop()} ({grouping.how}), so that none "
            "can be tested on; declare what a group is (--group; '.+': each video), or cut them in time (--split time)"
        )
    rows, notes = by_video(train, cutting)
    parts = _apart(train, rows)
    by = "group" if any(train.groups) else "video"
    how = f"cut by {by}, by a hash of the seed and the name" + ", class by class" * cutting.labelled
    return Parts(**parts, **facts, how=how, notes=empty + notes)  # type: ignore[arg-type]


def _empty_classes(train: Index) -> tuple[str, ...]:
    """What is to be said of classes that have a name and no usable video to train on."""
    seen = set(train.labels)
    empty = [name for number, name in enumerate(train.classes) if number not in seen]
    return (f"classes without a usable video to train on, {len(empty)}: {', '.join(empty[:10])}",) if empty else ()


def _short_videos(found: dict[str, Index], cutting: Cutting) -> tuple[str, ...]:
    """What is to be said of videos that are shorter than a clip."""
    videos = [video for index in found.values() for video in index.videos]
    short = [video.path for video in videos if video.frames < cutting.span(video.fps)]
    words = "are shorter than a clip, which ends in repetitions of their last frame"
    return (f"{len(short)} of {len(videos)} videos {words}: {', '.join(short[:3])}",) if short else ()


def _labelled(index: Index) -> Index:
    """Without the videos that have no label, which are among the rejected then."""
    rows = [row for row, label in enumerate(index.labels) if label >= 0]
    bare = [video.path for video, label in zip(index.videos, index.labels, strict=True) if label < 0]
    if not rows:
        raise LayerlockError(
            f"{index.root} ({index.layout}): no video has a label; class folders, lists with labels, "
            "Something-Something and Kinetics lists have (docs/evaluation.md)"
        )
    return replace(subset(index, rows), rejected=(*index.rejected, *((path, "it has no label") for path in bare)))


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


def _apart(index: Index, rows: dict[str, list[int]]) -> dict[str, Part]:
    """The videos of each part. LayerlockError for one that stands in two classes, and so in two parts."""
    indices = {role: subset(index, chosen) for role, chosen in rows.items()}
    _check_apart(indices)
    return {role: Part(index=chosen) for role, chosen in indices.items()}


def _check_apart(found: dict[str, Index]) -> None:
    role_of: dict[object, str] = {}
    identities = identities_of(found.values())
    for role, index in found.items():
        for video in index.videos:
            other = role_of.setdefault(identities[video.path], role)
            if other != role:
                raise LayerlockError(f"{video.path}: in the {other} and in the {role} part; take it out of one")


def _check(parts: Parts, cutting: Cutting) -> Parts:
    for role, part in (("training", parts.train), ("test", parts.test), ("validation", parts.validation)):
        if not len(part):
            told = "; ".join((parts.how, *parts.notes))
            raise LayerlockError(f"{parts.train.index.root}: no video is left for the {role} part ({told})")
    if cutting.labelled:
        trained = set(parts.train.index.labels)
        for role, part in (("validation", parts.validation), ("test", parts.test)):
            unseen = sorted(parts.classes[label] for label in set(part.index.labels) - trained)
            if unseen:
                raise LayerlockError(
                    f"{part.index.root}: classes of the {role} part that no training video has: {', '.join(unseen[:5])}"
                )
    return parts
