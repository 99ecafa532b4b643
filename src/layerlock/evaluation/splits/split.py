"""The three splits of a data set: readouts are trained on one, chosen on another, tested on the third."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerlock.data import ClipConfig
from layerlock.data.decode.beside import depth_path
from layerlock.data.folder import FolderSource, video_name
from layerlock.data.index import Index
from layerlock.data.index.cache import contents_of
from layerlock.errors import LayerlockError

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
    def depths(self) -> tuple[str, ...]:
        """Where the depth of each video is: beside it, or in the video itself, a folder of frames or a scan."""
        beside = [str(depth_path(video.path)) for video in self.index.videos]
        return tuple(
            place if os.path.exists(place) else video.path
            for place, video in zip(beside, self.index.videos, strict=True)
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """What each video belongs to: its group, or itself. Stretches of one video are one group."""
        return tuple(group_of(self.index, row) or video.path for row, video in enumerate(self.index.videos))

    @property
    def group_v(self) -> Tensor:
        """The same as numbers, int64 `[V]`."""
        number_of = {name: number for number, name in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([number_of[name] for name in self.groups])

    def source(self, clip: ClipConfig, seed: int, *, with_depth: bool) -> FolderSource:
        """Clips of the split."""
        return FolderSource(self.index, clip, seed, with_depth=with_depth, stretches=self.stretches)


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

    def check_pairs(self) -> None:
        """Raises LayerlockError where no two videos of a split of retrieval have a class in common."""
        for role, splits in (("training and validation", (self.train, self.validation)), ("test", (self.test,))):
            pairs = [pair for split in splits for pair in zip(split.index.labels, split.groups, strict=True)]
            groups = Counter(label for label, _ in set(pairs))
            if max(groups.values()) < 2:
                raise LayerlockError(
                    f"{self.test.index.root}: nothing to retrieve among {len(pairs)} videos of the {role} split: no "
                    "two are of one class and of different groups (--test-share says how many are tested on)"
                )

    def fingerprints(self, clip: ClipConfig, *, with_depth: bool) -> dict[str, str]:
        """Sixteen hexadecimal digits each of the videos in the splits, of what is read from them, labels or depth, and
        of their groups.
        """
        splits = (self.train, self.validation, self.test)
        videos = [(split.source(clip, 0, with_depth=False).fingerprint, split.stretches) for split in splits]
        depths = [contents_of(path) for split in splits for path in split.depths] if with_depth else []
        groups = [split.index.groups for split in splits]
        told = {"videos": videos, "targets": [[split.index.labels for split in splits], self.classes, depths]}
        return {
            f"{name} of the data": hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
            for name, facts in (told | {"groups": groups}).items()
        }


def subset(index: Index, rows: Sequence[int]) -> Index:
    """The videos at some positions, with their labels; nothing of what was rejected."""
    videos = tuple(index.videos[row] for row in rows)
    labels = tuple(index.labels[row] for row in rows)
    groups = tuple(index.groups[row] for row in rows) if index.groups else ()
    return replace(index, videos=videos, labels=labels, groups=groups, rejected=())


def group_of(index: Index, row: int) -> str:
    """What a video belongs to; empty where it stands alone."""
    return index.groups[row] if index.groups else ""
