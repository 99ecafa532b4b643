"""Maskings of single tokens, places or times, drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws
from layerlock.learn.masking.masks import (
    SEVERAL_GROUPS,
    Counts,
    Masks,
    ascending,
    group_runs,
    predict_problems,
    random_subset,
    share_problems,
    shuffled,
)
from layerlock.model.patches import Grid


@dataclass(frozen=True, kw_only=True)
class RandomMasking:
    """Each token kept as context independently at random, exactly `round(N * keep)` of them (LayerLock section 3.1).

    Its losses are on all patches, or on a subset that the plan draws. With `predict` it names masked tokens too, for
    losses at masked positions: all of them at 1, a random share of them below (CrossMAE, arXiv 2401.14391). `masks` of
    a clip are drawn independently, a context pass each, which share the pass of the targets (data2vec 2.0).

    With `keep_to` the share varies (R2MAE, arXiv 2509.21650): `group` consecutive global sample indices, whatever the
    batch, have one number of context tokens, each number from that of `keep` to that of `keep_to` equally likely. It is
    known only once drawn, so `draw` and `parts` then wait for the device where `index_b` lies on one.
    """

    keep: float = 0.05
    """share of the tokens that the model sees"""
    keep_to: float | None = None
    """largest share of the tokens that the model sees, drawn uniformly from `keep` on; None: always `keep`"""
    group: int = 32
    """consecutive samples that see the same number of tokens, where `keep_to` varies it"""
    predict: float | None = None
    """share of the masked tokens that losses at masked positions are on; None: there are no such losses"""
    masks: int = 1
    """masks of a clip in a step"""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """Masks of `round(N * keep)` context tokens each, or of as many as the mask group has; see `Masking`. Raises
        ValueError for samples of several mask groups.
        """
        masks = []
        for number in range(self.masks):
            key = draws.key(seed, f"mask {number}") if number else seed
            kept = self._kept_by(key, index_b, grid)
            predicted = self._predicted(kept, grid)
            order_bn = shuffled(key, "context", index_b, math.prod(grid))
            predicted_bq = ascending(order_bn[:, kept : kept + predicted]) if predicted else None
            masks.append(Masks(context_bk=ascending(order_bn[:, :kept]), predicted_bq=predicted_bq))
        return masks

    def counts(self, grid: Grid) -> list[Counts]:
        """Exact integers; with `keep_to` the exact means."""
        kept = self._range(grid)
        predicted = sum(self._predicted(each, grid) for each in kept) / len(kept)
        return [Counts(context=sum(kept) / len(kept), predicted=predicted)] * self.masks

    def parts(self, index_b: Tensor) -> list[slice]:
        """The whole batch in one, without reading from the device; with `keep_to` the runs of one mask group."""
        return [slice(0, len(index_b))] if self.keep_to is None else group_runs(index_b, self.group)

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each."""
        if not 0 < self.keep < 1:
            return [f"masking.keep: {self.keep} must be above 0 and below 1"]
        if self.keep_to is not None and not self.keep <= self.keep_to < 1:
            return [f"masking.keep_to: {self.keep_to} must be from masking.keep, {self.keep}, to below 1"]
        problems = [f"masking.masks: {self.masks} is not positive"] if self.masks < 1 else []
        if self.keep_to is None and self.group != RandomMasking.group:
            problems.append("masking.group: only used with masking.keep_to")
        elif self.group < 1:
            problems.append(f"masking.group: {self.group} is not positive")
        tokens, kept = math.prod(grid), self._range(grid)
        problems += share_problems("keep", self.keep, kept[0], tokens, "tokens")
        if self.keep_to is not None and kept[-1] != kept[0]:
            problems += share_problems("keep_to", self.keep_to, kept[-1], tokens, "tokens")
        return problems + predict_problems(self.predict, self._predicted(kept[-1], grid), tokens - kept[-1])

    def _range(self, grid: Grid) -> range:
        """The numbers of context tokens that are drawn from, all equally likely."""
        tokens = math.prod(grid)
        return range(round(tokens * self.keep), round(tokens * (self.keep_to or self.keep)) + 1)

    def _kept_by(self, key: int, index_b: Tensor, grid: Grid) -> int:
        """Context tokens of samples, which are of one mask group where the number varies."""
        kept = self._range(grid)
        if self.keep_to is None:
            return kept[0]
        group_b = index_b.to(torch.int64) // self.group
        share = draws.uniform(key, "keep", group_b[:1], 1).flatten()[0]
        at, several = torch.stack([share * len(kept), (group_b != group_b[0]).any()]).tolist()
        if several:
            raise ValueError(SEVERAL_GROUPS)
        return kept[int(at)]

    def _predicted(self, kept: int, grid: Grid) -> int:
        return 0 if self.predict is None else round((math.prod(grid) - kept) * self.predict)


@dataclass(frozen=True, kw_only=True)
class TubeMasking:
    """One random spatial mask for all times: `H W - floor((1 - keep) H W)` places are context, the rest is predicted.

    The masking of VideoMAE (arXiv 2203.12602), counted as in its code, and of blockwise learning (arXiv 2601.09040).
    """

    keep: float = 0.1
    """share of the places that the model sees"""
    predict: float = 1.0
    """share of the masked places that are predicted, a random one below 1"""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """One mask with the context places at all T times, and other places predicted; see `Masking`."""
        time, height, width = grid
        order_bp = shuffled(seed, "tube", index_b, height * width)
        kept = self._kept(grid)
        ends = [kept, kept + self._predicted(grid)]
        context_bp, predicted_bp = (ascending(part) for part in order_bp.tensor_split(ends, dim=1)[:2])
        start_t = torch.arange(time, device=index_b.device) * (height * width)

        def at_all_times(place_bp: Tensor) -> Tensor:
            return (start_t[:, None] + place_bp[:, None, :]).flatten(1)

        return [Masks(context_bk=at_all_times(context_bp), predicted_bq=at_all_times(predicted_bp))]

    def counts(self, grid: Grid) -> list[Counts]:
        """Exact integers."""
        return [Counts(context=grid[0] * self._kept(grid), predicted=grid[0] * self._predicted(grid))]

    def parts(self, index_b: Tensor) -> list[slice]:
        """The whole batch in one; reads nothing from the device."""
        return [slice(0, len(index_b))]

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each."""
        if not 0 < self.keep < 1:
            return [f"masking.keep: {self.keep} must be above 0 and below 1"]
        kept, places = self._kept(grid), grid[1] * grid[2]
        problems = share_problems("keep", self.keep, kept, places, "places")
        return problems or predict_problems(self.predict, self._predicted(grid), places - kept)

    def _predicted(self, grid: Grid) -> int:
        return round((grid[1] * grid[2] - self._kept(grid)) * self.predict)

    def _kept(self, grid: Grid) -> int:
        places = grid[1] * grid[2]
        return places - math.floor((1 - self.keep) * places + 1e-9)  # the count, not what a product is rounded to


@dataclass(frozen=True, kw_only=True)
class FutureMasking:
    """A later part of the clip predicted from an earlier one, as in RVM (arXiv 2512.13684).

    Context are `round(keep)` of the tokens of the first `past` of the grid's times, predicted `round(predict)` of those
    of the later times, both at random; nothing of the later times is seen. RVM encodes whole past frames, recurrently,
    and decodes a later frame from a few of its tokens and these.
    """

    past: float = 0.5
    """share of the times that context comes from, the first ones"""
    keep: float = 0.5
    """share of the tokens of these times that the model sees"""
    predict: float = 0.5
    """share of the tokens of the later times that are predicted, a random one below 1"""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """One mask with exact counts; see `Masking`."""
        ((context, predicted),), (past, future) = self.counts(grid), self._tokens(grid)
        context_bk = random_subset(seed, "past", index_b, past, round(context))
        predicted_bq = past + random_subset(seed, "future", index_b, future, round(predicted))
        return [Masks(context_bk=context_bk, predicted_bq=predicted_bq)]

    def counts(self, grid: Grid) -> list[Counts]:
        """Exact integers."""
        past, future = self._tokens(grid)
        return [Counts(context=round(past * self.keep), predicted=round(future * self.predict))]

    def parts(self, index_b: Tensor) -> list[slice]:
        """The whole batch in one; reads nothing from the device."""
        return [slice(0, len(index_b))]

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each."""
        shares = [("past", self.past), ("keep", self.keep), ("predict", self.predict)]
        wrong = [
            f"masking.{name}: {share} must be above 0 and at most 1" for name, share in shares if not 0 < share <= 1
        ]
        if wrong:
            return wrong
        (counts,), (past, future) = self.counts(grid), self._tokens(grid)
        if not past or not future:
            times = round(grid[0] * self.past)
            return [f"masking.past: {self.past} of {grid[0]} times leaves {times} as context, {grid[0] - times} later"]
        return [
            f"masking.{name}: {share} of {of} tokens leaves none {what}"
            for name, share, of, count, what in (
                ("keep", self.keep, past, counts.context, "as context"),
                ("predict", self.predict, future, counts.predicted, "to predict"),
            )
            if not count
        ]

    def _tokens(self, grid: Grid) -> tuple[int, int]:
        """Of the times that context comes from, and of the later ones."""
        time, height, width = grid
        past = round(time * self.past)
        return past * height * width, (time - past) * height * width
