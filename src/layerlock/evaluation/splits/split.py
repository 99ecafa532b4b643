"""The three splits of a data set: readouts are trained on one, chosen on another, tested on the third."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource, video_name
from layerlock.data.index import Index
from layerlock.evaluation.tasks.task import Target

Stretch = tuple[int, int]
"""a part of a video: its first frame, and the one after its last"""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Videos of a split; one of which several stretches are used is there several times."""

    index: Index
    stretches: tuple[Stretch, ...] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def name(self, row: int) -> str:
        """What the video at a position is called, with the frames of its stretch."""
        return video_name(self.index, row, self.stretches)

    @property
    def groups(self) -> tuple[str, ...]:
        """What each video belongs to: its group, or itself. Stretches of one video are one group."""
        return tuple(group_of(self.index, row) or video.path for row, video in enumerate(self.index.videos))

    @property
    def group_v(self) -> Tensor:
        """The same as numbers, int64 `[V]`."""
        number_of = {name: number for number, name in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([number_of[name] for name in self.groups])

    def values(self, target: Target) -> tuple[float, ...]:
        """The target of each video: a number, or that of its class."""
        return values_of(self.index, target)

    def source(self, clip: ClipConfig, seed: int, targets: Sequence[str] = ()) -> FolderSource:
        """Clips of the split, which carry `targets`."""
        return FolderSource(self.index, clip, seed, targets=targets, stretches=self.stretches)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """All splits, with the same numbers for the same classes, and in words how they came about."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    layout: str
    how: str
    grouping: str = ""
    """in words, what was taken for a group of videos that are not independent"""
    notes: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of videos that were found unusable before any clip was cut"""

    def __getitem__(self, role: str) -> Split:
        """`train`, `validation` or `test`."""
        split: Split = getattr(self, role)
        return split

    def together(self, roles: Sequence[str]) -> Split:
        """The videos of some splits as one."""
        first, *others = (self[role] for role in roles)
        return reduce(_joined, others, first)

    def fingerprints(self, clip: ClipConfig, target: str) -> dict[str, str]:
        """Sixteen hexadecimal digits each of the videos in the splits, of a target of theirs, and of their groups."""
        splits = (self.train, self.validation, self.test)
        sources = [split.source(clip, 0, (target,)) for split in splits]
        facts = {
            "videos": [(source.fingerprint, source.stretches) for source in sources],
            "targets": [source.target_fingerprint for source in sources],
            "groups": [split.index.groups for split in splits],
        }
        return {
            f"{name} of the data": hashlib.blake2b(repr(fact).encode(), digest_size=8).hexdigest()
            for name, fact in facts.items()
        }


def _joined(a: Split, b: Split) -> Split:
    index = replace(
        a.index,
        videos=(*a.index.videos, *b.index.videos),
        targets={
            name: replace(column, values=(*column.values, *b.index.targets[name].values))
            for name, column in a.index.targets.items()
            if name in b.index.targets
        },
        groups=(*a.index.groups, *b.index.groups),
    )
    apart = None if a.stretches is None or b.stretches is None else a.stretches + b.stretches
    return Split(index=index, stretches=apart)


def values_of(index: Index, target: Target) -> tuple[float, ...]:
    """The number of each video that is its target or its class, `target.missing` where it has none."""
    column = index.targets.get(target.name)
    return (target.missing,) * len(index) if column is None or column.kind != target.kind else tuple(column.values)


def classes_of(index: Index, target: Target) -> tuple[str, ...]:
    """Names of the classes by number; () where the target is none."""
    column = index.targets.get(target.name)
    return () if column is None or target.kind != "class" else column.classes or ()


def group_of(index: Index, row: int) -> str:
    """What a video belongs to; empty where it stands alone."""
    return index.groups[row] if index.groups else ""
