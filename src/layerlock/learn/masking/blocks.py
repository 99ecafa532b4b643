"""V-JEPA's maskings: rectangles through all times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from layerlock import draws
from layerlock.learn.masking.masks import SEVERAL_GROUPS, Counts, Masks, ascending, group_runs
from layerlock.model.patches import Grid

ATTEMPTS = 16
"""how often the blocks of one sample are drawn before all but the first of them are left out"""
MOST_IN_GROUP = 4_096
"""largest mask group: all of it is drawn for any of its samples"""
ESTIMATE_BLOCKS = 200_000
"""blocks drawn for an expected count, whose standard error is then 1 % or less at V-JEPA's settings"""


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
        return [Masks(context_bk=ascending(order_bn[:, :context]), predicted_bq=ascending(predicted_bq))]

    def counts(self, grid: Grid) -> list[Counts]:
        """Means over mask groups of 200,000 blocks in all, drawn from a fixed seed; kept for later calls."""
        return [_estimate(self, grid).counts]

    def parts(self, index_b: Tensor) -> list[slice]:
        """The runs of samples of one mask group; waits for the device where `index_b` lies on one."""
        return group_runs(index_b, self.group)

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
