"""What a masking gives, what is asked of one, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from layerlock import draws
from layerlock.model.patches import Grid

SEVERAL_GROUPS = "samples of several mask groups do not stack: draw each of parts(index_b) by itself"


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Positions of a pass, ascending: `context_bk` int64 `[B, K]` goes in, `predicted_bq` int64 `[B, Q]` comes out.

    `predicted_bq` is None where the masking leaves the losses to all patches, or to a subset that the plan asks for.
    """

    context_bk: Tensor
    predicted_bq: Tensor | None

    def to(self, device: torch.device) -> Masks:
        """The same masks on a device, which is not waited for."""
        predicted_bq = None if self.predicted_bq is None else move(self.predicted_bq, device)
        return Masks(context_bk=move(self.context_bk, device), predicted_bq=predicted_bq)


def move(position_bk: Tensor, device: torch.device) -> Tensor:
    """Positions on a device; those that go from the CPU to a GPU by pinned memory, so that nobody waits."""
    pinned = device.type == "cuda" and position_bk.device.type == "cpu"
    return (position_bk.pin_memory() if pinned else position_bk).to(device, non_blocking=True)


class Counts(NamedTuple):
    """Expected tokens of one clip in one pass, for counting FLOPs; 0 predicted where the masking names none."""

    context: float
    predicted: float


class Masking(Protocol):
    """What is seen and what is predicted. No state: the same sample has the same masks in any batch, on any device."""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """The masks of the samples `index_b` `[B]`, which are one of their `parts`, on its device; a context pass
        each.
        """

    def counts(self, grid: Grid) -> list[Counts]:
        """Tokens of a clip in each of those passes."""

    def parts(self, index_b: Tensor) -> list[slice]:
        """The runs of a batch whose samples share K and Q, so that their masks stack; in order, none left out."""

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each. Without problems, no mask lacks context or target."""


def random_subset(seed: int, purpose: str, index_b: Tensor, tokens: int, count: int) -> Tensor:
    """`count` of `tokens` positions for each sample, uniformly at random, in ascending order: int64 `[B, count]`."""
    return ascending(shuffled(seed, purpose, index_b, tokens)[:, :count])


def shuffled(seed: int, purpose: str, index_b: Tensor, tokens: int) -> Tensor:
    """All positions in random order: int64 `[B, tokens]`."""
    return draws.bits(seed, purpose, index_b, tokens).argsort(dim=1, stable=True)


def ascending(position_bn: Tensor) -> Tensor:
    return position_bn.sort(dim=1).values


def group_runs(index_b: Tensor, group: int) -> list[slice]:
    """The runs of samples of one mask group; waits for the device where `index_b` lies on one."""
    lengths = (index_b // group).unique_consecutive(return_counts=True)[1].tolist()
    return [slice(begin, end) for begin, end in pairwise(accumulate(lengths, initial=0))]


def share_problems(name: str, keep: float, kept: int, of: int, what: str) -> list[str]:
    if 0 < kept < of:
        return []
    return [f"masking.{name}: {keep} of {of} {what} leaves {kept} as context"]


def predict_problems(predict: float | None, predicted: int, of: int) -> list[str]:
    """What is wrong with predicting a share of the masked tokens, where one is named."""
    if predict is None or (0 < predict <= 1 and predicted > 0):
        return []
    return [f"masking.predict: {predict} of {of} masked tokens leaves {predicted} to predict"]
