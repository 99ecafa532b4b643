"""Which tokens are context and which are predicted: pure functions of (seed, global sample index).

Five maskings of one shape, the protocol `Masking`. A learner draws part by part and runs one context pass a mask:

    for part in masking.parts(index_b):
        for masks in masking.draw(seed, index_b[part], grid):
            ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from layerlock import draws
from layerlock.model.patches import Grid

ATTEMPTS = 16
"""how often the blocks of one sample are drawn before all but the first of them are left out"""
MOST_IN_GROUP = 4_096
"""largest mask group: all of it is drawn for any of its samples"""
SEVERAL_GROUPS = "samples of several mask groups do not stack: draw each of parts(index_b) by itself"
ESTIMATE_BLOCKS = 200_000
"""blocks drawn for an expected count, whose standard error is then 1 % or less at V-JEPA's settings"""


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
    return _ascending(_shuffled(seed, purpose, index_b, tokens)[:, :count])


def _shuffled(seed: int, purpose: str, index_b: Tensor, tokens: int) -> Tensor:
    """All positions in random order: int64 `[B, tokens]`."""
    return draws.bits(seed, purpose, index_b, tokens).argsort(dim=1, stable=True)


def _ascending(position_bn: Tensor) -> Tensor:
    return position_bn.sort(dim=1).values


def _group_runs(index_b: Tensor, group: int) -> list[slice]:
    """The runs of samples of one mask group; waits for the device where `index_b` lies on one."""
    lengths = (index_b // group).unique_consecutive(return_counts=True)[1].tolist()
    return [slice(begin, end) for begin, end in pairwise(accumulate(lengths, initial=0))]


def _share_problems(name: str, keep: float, kept: int, of: int, what: str) -> list[str]:
    if 0 < kept < of:
        return []
    return [f"masking.{name}: {keep} of {of} {what} leaves {kept} as context"]


def _predict_problems(predict: float | None, predicted: int, of: int) -> list[str]:
    """What is wrong with predicting a share of the masked tokens, where one is named."""
    if predict is None or (0 < predict <= 1 and predicted > 0):
        return []
    return [f"masking.predict: {predict} of {of} masked tokens leaves {predicted} to predict"]


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
            order_bn = _shuffled(key, "context", index_b, math.prod(grid))
            predicted_bq = _ascending(order_bn[:, kept : kept + predicted]) if predicted else None
            masks.append(Masks(context_bk=_ascending(order_bn[:, :kept]), predicted_bq=predicted_bq))
        return masks

    def counts(self, grid: Grid) -> list[Counts]:
        """Exact integers; with `keep_to` the exact means."""
        kept = self._range(grid)
        predicted = sum(self._predicted(each, grid) for each in kept) / len(kept)
        return [Counts(context=sum(kept) / len(kept), predicted=predicted)] * self.masks

    def parts(self, index_b: Tensor) -> list[slice]:
        """The whole batch in one, without reading from the device; with `keep_to` the runs of one mask group."""
        return [slice(0, len(index_b))] if self.keep_to is None else _group_runs(index_b, self.group)

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
        problems += _share_problems("keep", self.keep, kept[0], tokens, "tokens")
        if self.keep_to is not None and kept[-1] != kept[0]:
            problems += _share_problems("keep_to", self.keep_to, kept[-1], tokens, "tokens")
        return problems + _predict_problems(self.predict, self._predicted(kept[-1], grid), tokens - kept[-1])

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
        order_bp = _shuffled(seed, "tube", index_b, height * width)
        kept = self._kept(grid)
        ends = [kept, kept + self._predicted(grid)]
        context_bp, predicted_bp = (_ascending(part) for part in order_bp.tensor_split(ends, dim=1)[:2])
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
        problems = _share_problems("keep", self.keep, kept, places, "places")
        return problems or _predict_problems(self.predict, self._predicted(grid), places - kept)

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


@dataclass(frozen=True, kw_only=True)
class MultiBlockMasking:
    """V-JEPA's: the union of `blocks` rectangles through all times is predicted, the rest is context (Table 9).

    A mask group is `group` consecutive global sample indices, whatever the batch. All its blocks have one size, drawn
    from `area` and `aspect`; each sample has its own corners. Every sample keeps as many context tokens and as many
    predicted ones as the group's smallest member has, at random: the first ones in raster order would drop the
    latest frames. A sample whose blocks cover everything is drawn again.

    K and Q are known only once drawn, so `draw` waits for the device where `index_b` lies on one, and `parts` too:
    indices on the CPU, and masks moved from there, stall nothing.
    """

    blocks: int = 8
    """rectangles in a mask"""
    area: tuple[float, float] = (0.3, 0.3)
    """smallest and largest share of the places that a rectangle covers"""
    aspect: tuple[float, float] = (0.75, 1.5)
    """smallest and largest ratio of a rectangle's height to its width"""
    group: int = 24
    """consecutive samples that share block size and token counts"""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """The mask of samples of one mask group. Raises ValueError where they are of several: K and Q would differ."""
        index_b = index_b.to(torch.int64)
        group_b = index_b // self.group
        covered_mp = self._covered(seed, group_b[:1], grid)[0]
        kept = [*_fewest(covered_mp, grid[0]), (group_b != group_b[0]).any()]
        context, predicted, several = torch.stack(kept).tolist()
        if several:
            raise ValueError(SEVERAL_GROUPS)
        covered_bn = covered_mp[index_b % self.group].repeat(1, grid[0])
        random_bn = draws.bits(seed, "context", index_b, math.prod(grid)) >> 1
        order_bn = (random_bn + (covered_bn.to(torch.int64) << 62)).argsort(dim=1, stable=True)  # context first
        predicted_bq = order_bn[:, order_bn.shape[1] - predicted :]
        return [Masks(context_bk=_ascending(order_bn[:, :context]), predicted_bq=_ascending(predicted_bq))]

    def counts(self, grid: Grid) -> list[Counts]:
        """Means over mask groups of 200,000 blocks in all, drawn from a fixed seed; kept for later calls."""
        return [_estimate(self, grid).counts]

    def parts(self, index_b: Tensor) -> list[slice]:
        """The runs of samples of one mask group; waits for the device where `index_b` lies on one."""
        return _group_runs(index_b, self.group)

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each."""
        problems = [
            f"masking.{name}: {value} is not positive"
            for name, value in (("blocks", self.blocks), ("group", self.group))
            if value < 1
        ]
        if self.group > MOST_IN_GROUP:
            problems.append(
                f"masking.group: {self.group} samples are too many to be drawn together ({MOST_IN_GROUP} can)"
            )
        if not 0 < self.area[0] <= self.area[1] <= 1:
            problems.append(f"masking.area: {self.area} must be a smallest and a largest share between 0 and 1")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            problems.append(f"masking.aspect: {self.aspect} must be a smallest and a largest ratio above 0")
        return problems or self._size_problems(grid) or self._cover_problems(grid)

    def _size_problems(self, grid: Grid) -> list[str]:
        _, height, width = grid
        least, most = (int(height * width * share) for share in self.area)
        if round(math.sqrt(least * self.aspect[0])) < 1 or round(math.sqrt(least / self.aspect[1])) < 1:
            return [f"masking.area: {self.area[0]} of {height}x{width} places leaves no target: blocks can be empty"]
        # the aspect ratios at which the largest block spans the height, and those at which it spans the width
        lowest, highest = (height - 0.5) ** 2 / most, most / (width - 0.5) ** 2
        if max(lowest, self.aspect[0]) <= min(highest, self.aspect[1]):
            return [f"masking.area: {self.area[1]} of {height}x{width} places leaves no context: a block can cover all"]
        return []

    def _cover_problems(self, grid: Grid) -> list[str]:
        places = f"{grid[1]}x{grid[2]} places"
        if self.blocks > grid[1] * grid[2]:
            return [f"masking.blocks: {self.blocks} is more than the {places}"]
        empty = _estimate(self, grid).empty
        if empty > 0.5:
            return [f"masking.blocks: {self.blocks} leave no context of {places} in {empty:.0%} of the draws"]
        return []

    def _sampled_groups(self) -> Tensor:
        return torch.arange(max(1, ESTIMATE_BLOCKS // (self.group * self.blocks)))

    def _covered(self, seed: int, group_g: Tensor, grid: Grid) -> Tensor:
        """Which places the blocks of all members cover, never all of them: bool `[G, group, H * W]`."""
        return self._redrawn(seed, group_g, grid, self._attempt(seed, group_g, grid, 0))

    def _redrawn(self, seed: int, group_g: Tensor, grid: Grid, covered_gmp: Tensor) -> Tensor:
        """The masks of a first attempt, those without context drawn again."""
        for attempt in range(1, ATTEMPTS + 1):
            full_gm = covered_gmp.all(dim=2)
            some = full_gm.any(dim=1).nonzero().flatten()
            if len(some) == 0:
                break
            again_smp = self._attempt(seed, group_g[some], grid, attempt)
            covered_gmp = covered_gmp.index_copy(
                0, some, torch.where(full_gm[some, :, None], again_smp, covered_gmp[some])
            )
        return covered_gmp

    def _attempt(self, seed: int, group_g: Tensor, grid: Grid, attempt: int) -> Tensor:
        """As `_covered`, for one attempt: all places can be covered but in the last, whose one block cannot do it."""
        _, height, width = grid
        blocks = self.blocks if attempt < ATTEMPTS else 1
        index_gm = group_g[:, None] * self.group + torch.arange(self.group, device=group_g.device)
        random = draws.bits(seed, f"blocks, attempt {attempt}", index_gm.flatten(), 2 * blocks)
        top_gmk, left_gmk = random.view(*index_gm.shape, 2, blocks).unbind(2)
        high_g, wide_g = self._block_size(seed, group_g, grid)
        rows_gmky = _inside(top_gmk, high_g[:, None, None], height)
        columns_gmkx = _inside(left_gmk, wide_g[:, None, None], width)
        return (rows_gmky[..., :, None] & columns_gmkx[..., None, :]).any(dim=2).flatten(2)

    def _block_size(self, seed: int, group_g: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Height and width in patches of each group's blocks: int64 `[G]` both."""
        _, height, width = grid
        area_g, aspect_g = draws.uniform(seed, "block size", group_g, 2).unbind(1)
        places_g = (height * width * _between(self.area, area_g)).floor()
        ratio_g = _between(self.aspect, aspect_g)
        high_g, wide_g = (places_g * ratio_g).sqrt().round(), (places_g / ratio_g).sqrt().round()
        return high_g.clamp(max=height).to(torch.int64), wide_g.clamp(max=width).to(torch.int64)


def _between(limits: tuple[float, float], share: Tensor) -> Tensor:
    return limits[0] + share * (limits[1] - limits[0])


def _inside(random: Tensor, size: Tensor, length: int) -> Tensor:
    """Which of `length` places lie in an interval of `size` whose start is uniform where it fits: bool
    `[..., length]`.
    """
    start = random % (length - size + 1)
    place = torch.arange(length, device=random.device)
    return (place >= start[..., None]) & (place < (start + size)[..., None])


def _fewest(covered_mp: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """Context and predicted tokens of the member that has fewest, over the last but one axis."""
    covered_m = covered_mp.sum(dim=-1)
    return time * (covered_mp.shape[-1] - covered_m.amax(dim=-1)), time * covered_m.amin(dim=-1)


class _Estimate(NamedTuple):
    """What drawing many groups told."""

    empty: float
    """share of the masks that leave no context at their first attempt"""
    counts: Counts


@lru_cache(maxsize=64)
def _estimate(masking: MultiBlockMasking, grid: Grid) -> _Estimate:
    groups = masking._sampled_groups()
    first_gmp = masking._attempt(0, groups, grid, 0)
    context_g, predicted_g = _fewest(masking._redrawn(0, groups, grid, first_gmp), grid[0])
    counts = Counts(context=context_g.double().mean().item(), predicted=predicted_g.double().mean().item())
    return _Estimate(empty=first_gmp.all(dim=2).double().mean().item(), counts=counts)


@dataclass(frozen=True, kw_only=True)
class SeveralMaskings:
    """Several multi-block masks of every clip, drawn independently, a context pass each; their losses are averaged.

    As it stands, the original V-JEPA's short and long masks (arXiv 2404.08471).
    """

    masks: tuple[MultiBlockMasking, ...] = (
        MultiBlockMasking(blocks=8, area=(0.15, 0.15)),
        MultiBlockMasking(blocks=2, area=(0.7, 0.7)),
    )
    """a masking for each pass"""

    def draw(self, seed: int, index_b: Tensor, grid: Grid) -> list[Masks]:
        """A mask of each masking, in their order; see `MultiBlockMasking.draw`."""
        return [
            masks
            for number, masking in enumerate(self.masks)
            for masks in masking.draw(draws.key(seed, f"mask {number}"), index_b, grid)
        ]

    def counts(self, grid: Grid) -> list[Counts]:
        """Those of each masking, in their order."""
        return [count for masking in self.masks for count in masking.counts(grid)]

    def parts(self, index_b: Tensor) -> list[slice]:
        """The runs of samples that are of one mask group under every masking; waits for the device."""
        begins = {part.start for masking in self.masks for part in masking.parts(index_b)}
        return [slice(begin, end) for begin, end in pairwise([*sorted(begins), len(index_b)])]

    def problems(self, grid: Grid) -> list[str]:
        """What is wrong on this grid, a line each."""
        if not self.masks:
            return ["masking.masks: there is none"]
        return [
            problem.replace("masking.", f"masking.masks[{number}].")
            for number, masking in enumerate(self.masks)
            for problem in masking.problems(grid)
        ]


Maskings = RandomMasking | TubeMasking | FutureMasking | MultiBlockMasking | SeveralMaskings
"""the maskings that a config can name"""
