"""Targets: what is known of a clip besides its pixels, by name.

| kind | sample | batch | unknown |
|---|---|---|---|
| `class` | int64 [] | int64 [B] | -1 |
| `float` | float32 [] | float32 [B] | nan |
| `map`, a number for every pixel | float32 [T, R, R] | float32 [B, T, R, R] | 0 |

Classes and floats are columns of an index; maps are read with the frames, and are cropped and flipped as they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor

ColumnKind = Literal["class", "float"]
Kind = ColumnKind | Literal["map"]

LABEL = "label"
"""the target that class folders and published lists have"""


def unknown(kind: Kind, *, frames: int, side: int) -> Tensor:
    """What a sample has where its target is not known; a map is `[frames, side, side]`."""
    if kind == "map":
        return torch.zeros(frames, side, side)
    return torch.tensor(-1) if kind == "class" else torch.tensor(math.nan)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A class or a number of each video."""

    values: Sequence[float]
    """whole numbers from 0 for classes, -1 where there is none; else any finite number, nan where there is none"""
    classes: tuple[str, ...] | None = None
    """names of the classes by number; None: the values are no classes"""

    @property
    def kind(self) -> ColumnKind:
        """What its values are."""
        return "float" if self.classes is None else "class"

    def sample(self, row: int) -> Tensor:
        """The target of a clip of the video at a position: int64 or float32 `[]`."""
        return torch.tensor(self.values[row], dtype=torch.float32 if self.classes is None else torch.int64)

    def take(self, rows: Sequence[int]) -> Column:
        """The values at some positions."""
        return Column(values=tuple(self.values[row] for row in rows), classes=self.classes)


class Labelled(ABC):
    """The target `label` of videos that have targets, as classes."""

    targets: Mapping[str, Column]

    @abstractmethod
    def __len__(self) -> int:
        """How many videos."""

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The class of each video, -1 where it has none."""
        column = self.targets.get(LABEL)
        if column is None or column.classes is None:
            return (-1,) * len(self)
        return cast("tuple[int, ...]", tuple(column.values))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by number; () where there are no labels."""
        column = self.targets.get(LABEL)
        return () if column is None or column.classes is None else column.classes
