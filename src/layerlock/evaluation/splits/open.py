"""The splits of a data set, its own or cut, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from layerlock.data.index import Index
from layerlock.data.targets import LABEL, Column
from layerlock.errors import LayerlockError
from layerlock.evaluation.splits.cut import Cutting, by_time, by_video, identities_of
from layerlock.evaluation.splits.groups import Grouping, check_apart, group_videos
from layerlock.evaluation.splits.own import own_splits
from layerlock.evaluation.splits.split import Split, Splits, classes_of, values_of
from layerlock.evaluation.tasks.task import Target


def open_splits(data: str, test_data: str | None, cutting: Cutting, read: Callable[[str], Index]) -> Splits:
    """The splits of `data`, whose lists and folders `read` indexes.

    Splits that the data have are used: of three all; of two the second is tested on and a share of the first is what is
    chosen on. `test_data` replaces any test split. Raises LayerlockError where a split would be empty, where labels are
    missing, where the test split has a class or a video that is not to be there, and where a group is in two splits.
    """
    places = own_splits(data)
    indices = {role: read(place) for role, place in places.items()}
    if test_data is not None:
        indices["test"] = read(test_data)
    target = cutting.target
    if cutting.labelled:
        asked = {"train"} if test_data is None else {"train", "test"}
        indices = {
            role: index for role, index in indices.items() if role in asked or set(cutting.labels_of(index)) != {-1}
        }
    if target.kind != "map":
        indices = {role: _known(index, target) for role, index in indices.items()}
    if "validation" in indices and "test" not in indices:
        indices["test"] = indices.pop("validation")
    grouping = group_videos(indices, cutting.group)
    indices, notes = grouping.indices, grouping.notes
    if len(indices) > 1:
        _check_apart(indices)
        notes += check_apart(indices, allowed=cutting.shared)
    indices = _same_classes(indices, target) if cutting.labelled else indices
    splits = _check(_assemble(indices, cutting, grouping), cutting)
    return replace(splits, grouping=grouping.how, notes=notes + splits.notes + _short_videos(indices, cutting))


def _assemble(indices: dict[str, Index], cutting: Cutting, grouping: Grouping) -> Splits:
    train = indices["train"]
    splits, how, notes = _cut(indices, train, cutting, grouping)
    return Splits(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=classes_of(train, cutting.target),
        layout=train.layout,
        how=how,
        notes=(*(_empty_classes(train, cutting) if cutting.labelled else ()), *notes),
        rejected=tuple(entry for index in indices.values() for entry in index.rejected),
    )


def _cut(
    indices: dict[str, Index], train: Index, cutting: Cutting, grouping: Grouping
) -> tuple[dict[str, Split], str, tuple[str, ...]]:
    """The three splits, in words how they came about, and what is odd about them."""
    if "test" in indices and cutting.by == "time":
        raise LayerlockError(f"split_by: time is not available, since {train.root} has a test split")
    if len(indices) == 3:
        return {role: Split(index=index) for role, index in indices.items()}, "the data's own splits", ()
    if "test" in indices:
        rows, notes = by_video(train, replace(cutting, test=0.0))
        share = f"validation is {cutting.validation:.0%} of the training split, by a hash of the seed and the name"
        splits = _apart(train, {role: rows[role] for role in ("train", "validation")})
        return splits | {"test": Split(index=indices["test"])}, f"its own training and test split; {share}", notes
    groups = set(Split(index=train).groups)
    if cutting.by == "time" or (cutting.by == "auto" and cutting.target.kind == "map" and len(groups) < 3):
        how = (
            "cut in time: the first frames of each video for training, the last for testing, a clip's length apart; "
            "each test clip counts as a video"
        )
        return by_time(train, cutting), how, ()
    if len(groups) == 1 and len(train) > 1:
        raise LayerlockError(
            f"{train.root}: all {len(train)} videos are in one group, {groups.pop()} ({grouping.how}), so there is "
            "nothing to test on; declare groups with --group ('.+': each video), or pass --split-by time"
        )
    rows, notes = by_video(train, cutting)
    by = "group" if any(train.groups) else "video"
    how = f"cut by {by}, by a hash of the seed and the name" + ", class by class" * cutting.labelled
    return _apart(train, rows), how, notes


def _empty_classes(train: Index, cutting: Cutting) -> tuple[str, ...]:
    """What is to be said of classes that have a name and no usable video to train on."""
    seen = set(cutting.labels_of(train))
    empty = [name for number, name in enumerate(classes_of(train, cutting.target)) if number not in seen]
    return (f"classes without a usable video to train on, {len(empty)}: {', '.join(empty[:10])}",) if empty else ()


def _short_videos(indices: dict[str, Index], cutting: Cutting) -> tuple[str, ...]:
    """What is to be said of videos that are shorter than a clip."""
    videos = [video for index in indices.values() for video in index.videos]
    short = [video.path for video in videos if video.frames < cutting.span(video.fps)]
    words = "are shorter than a clip, which ends in repetitions of their last frame"
    return (f"{len(short)} of {len(videos)} videos {words}: {', '.join(short[:3])}",) if short else ()


def _known(index: Index, target: Target) -> Index:
    """Without the videos whose target is not known, which are among the rejected then."""
    known = target.known(torch.tensor(values_of(index, target))).tolist()
    if not any(known):
        column = index.targets.get(target.name)
        if column is not None and column.kind != target.kind:
            raise LayerlockError(f"{index.root}: {target.name} is a {column.kind} of each video, not a {target.kind}")
        hint = (
            "class folders, lists with labels, Something-Something and Kinetics lists have" * (target.name == LABEL)
            or "--column names a column of a list"
        )
        raise LayerlockError(
            f"{index.root} ({index.layout}): no video has a {target.name}; {hint} (docs/evaluation.md)"
        )
    bare = [video.path for video, is_known in zip(index.videos, known, strict=True) if not is_known]
    usable = index.take([row for row, is_known in enumerate(known) if is_known])
    return replace(usable, rejected=(*index.rejected, *((path, f"it has no {target.name}") for path in bare)))


def _same_classes(indices: dict[str, Index], target: Target) -> dict[str, Index]:
    """The other splits with the class numbers of the training split. LayerlockError for a class that it has not."""
    names = classes_of(indices["train"], target)
    number_of = {name: number for number, name in enumerate(names)}
    for role, index in indices.items():
        own = [classes_of(index, target)[int(value)] for value in values_of(index, target)]
        unseen = sorted(set(own) - set(number_of))
        if unseen:
            raise LayerlockError(f"{index.root}: classes of the {role} split that no training video has: {unseen[:5]}")
        column = Column(values=tuple(number_of[name] for name in own), classes=names)
        indices[role] = replace(index, targets={**index.targets, target.name: column})
    return indices


def _apart(index: Index, rows: dict[str, list[int]]) -> dict[str, Split]:
    """The videos of each split. LayerlockError for one that stands in two classes, and so in two splits."""
    indices = {role: index.take(chosen) for role, chosen in rows.items()}
    _check_apart(indices)
    return {role: Split(index=chosen) for role, chosen in indices.items()}


def _check_apart(indices: dict[str, Index]) -> None:
    role_of: dict[object, str] = {}
    identities = identities_of(indices.values())
    for role, index in indices.items():
        for video in index.videos:
            other = role_of.setdefault(identities[video.path], role)
            if other != role:
                raise LayerlockError(f"{video.path}: in the {other} and in the {role} split; take it out of one")


def _check(splits: Splits, cutting: Cutting) -> Splits:
    for role, split in (("training", splits.train), ("test", splits.test), ("validation", splits.validation)):
        if not len(split):
            told = "; ".join((splits.how, *splits.notes))
            raise LayerlockError(f"{splits.train.index.root}: no video is left for the {role} split ({told})")
    if cutting.labelled:
        trained = set(splits.train.values(cutting.target))
        for role, split in (("validation", splits.validation), ("test", splits.test)):
            unseen = sorted(splits.classes[int(label)] for label in set(split.values(cutting.target)) - trained)
            if unseen:
                raise LayerlockError(
                    f"{split.index.root}: classes of the {role} split that no training video has: "
                    f"{', '.join(unseen[:5])}"
                )
    return splits
