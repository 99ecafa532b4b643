"""Freezing without a schedule: blocks freeze, shallow ones first, when their weights have stopped growing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from layerlock.learn.plan import Stage
from layerlock.learn.plans.freezing import ROUNDING
from layerlock.learn.plans.locking import Locking
from layerlock.learn.plans.waiting import Waiting, one_by_one, positive

MOST = 0.75
"""of the encoder's blocks freeze: where LayerLock ends (section 3.4)"""


@dataclass(frozen=True, kw_only=True)
class Auto(Locking):
    """Progressive freezing whose times come from the weights, by the heuristic that LayerLock gives for its schedule
    (section 3.4): begin when weight norms of the first layers plateau, end with three quarters of the encoder frozen.

    At each log line the growth of every block's weight norm over the last `lines` lines of the stage is computed, as a
    share of the norm and over the learning rates of these steps, since a small rate makes any norm stand still. Where
    that of all blocks that would freeze next (at first with the patch projection) is at most `threshold` of the
    fastest that each has had, `patience` lines in a row, they freeze: `first` blocks, then `jump` more each time, none
    before `earliest` and never more than `last`. Where it never comes to that nothing freezes, and the run says so.
    """

    lines: int = 10
    """log lines over which the growth of a norm is measured"""
    threshold: float = 0.25
    """growth that is a plateau, as a share of the fastest growth of the same block so far"""
    patience: int = 3
    """log lines in a row at which the blocks that freeze next are on a plateau"""
    earliest: float = 0.1
    """fraction of the run before which nothing freezes"""
    last: int = 0
    """maximum number of frozen blocks; 0: three quarters of the encoder's"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = super().problems() + positive(self, "first", "jump", "lines", "patience")
        if not 0 < self.threshold < 1:
            problems.append(f"plan.threshold: {self.threshold} must be between 0 and 1, a share of the fastest growth")
        if not 0 <= self.earliest <= 1:
            problems.append(f"plan.earliest: {self.earliest} must be from 0 to 1, a fraction of the run")
        if self.last < 0:
            problems.append(f"plan.last: {self.last} is negative")
        return problems

    def build(self, steps: int, encoder_depth: int, depth: int) -> AutoPlan:
        """The plan of a run of `steps` steps."""
        most = self.last or max(1, math.floor(MOST * encoder_depth))
        return AutoPlan(self, one_by_one(self, most, encoder_depth, depth), steps)


class AutoPlan(Waiting):
    """Stages, each until the blocks that freeze next are on a plateau, as `Auto` says."""

    settings: Auto

    def __init__(self, settings: Auto, stages: tuple[Stage, ...], steps: int) -> None:
        super().__init__(settings, stages, steps)
        self.rows: list[tuple[int, float, list[float]]] = []
        """steps, learning rates and weight norms, from the patch projection on, of the lines that growth is over"""
        self.fastest: list[float] = []
        self.course: list[tuple[int, list[float]]] = []
        """by step, the growth of each norm as a share of its fastest so far, what was decided by"""

    def see(self, step: int, figures: Mapping[str, Any]) -> None:
        """Adds the shares of this line, where there are enough lines of the stage."""
        row = (step, float(figures["lr"]), [float(norm) for norm in figures["weight_norms"]])
        self.rows = [*self.rows, row][-self.settings.lines - 1 :]
        rates = sum((now[0] - before[0]) * now[1] for before, now in pairwise(self.rows))
        if len(self.rows) <= self.settings.lines or rates <= 0:
            return
        growth = [(new - old) / new / rates if new else 0.0 for old, new in zip(self.rows[0][2], row[2], strict=True)]
        self.fastest = [max(pair) for pair in zip(growth, self.fastest or growth, strict=True)]
        shares = [a / b if b > 0 else math.nan for a, b in zip(growth, self.fastest, strict=True)]
        self.course.append((step, shares))

    def begin(self) -> None:
        """Growth is over lines of one stage; how fast it has been stays known."""
        self.rows = self.rows[-1:]

    def reason(self, lasted: float, done: float) -> str:
        """That the blocks that freeze next are on a plateau."""
        settings, shares = self.settings, self.shares()
        self.flat = self.flat + 1 if shares and all(share <= settings.threshold for share in shares) else 0
        if self.flat < settings.patience or done + ROUNDING < settings.earliest:
            return ""
        return (
            f"over the learning rate the weight norm of {self.next_blocks()} grows at {max(shares):.0%} of its "
            f"fastest; {self.flat} lines in a row at {settings.threshold:.0%} or less"
        )

    def shares(self) -> list[float]:
        """Those of the last line of the parts that freeze next; none where there were too few lines for them."""
        if len(self.rows) <= self.settings.lines or not self.course or self.course[-1][0] != self.rows[-1][0]:
            return []
        return self.course[-1][1][self.waits_for()]

    def waits_for(self) -> slice:
        """The parts that freeze next, counted from the patch projection on."""
        now, after = self.stages[self.number].frozen, self.stages[self.number + 1].frozen
        return slice(now + 1 if now else 0, after + 1)

    def next_blocks(self) -> str:
        """These parts in words."""
        parts = self.waits_for()
        first, last = max(parts.start, 1), parts.stop - 1
        blocks = f"block {last}" if first == last else f"each of blocks {first} to {last}"
        return blocks if parts.start else f"the patch projection and {blocks}"

    def conclusion(self) -> str:
        """That nothing froze and how far it was from that; empty where something did."""
        if self.number or len(self.stages) == 1:
            return ""
        settings, shares = self.settings, self.shares()
        if not shares:
            return f"no block froze: growth of weight norms is known from {settings.lines + 1} log lines on"
        known = [share for share in shares if not math.isnan(share)]
        grew = f"grew at {max(known):.0%} of its fastest at the last line" if known else "has never grown"
        if 0 < len(known) < len(shares):
            grew += ", and that of one of these has never grown"
        return (
            f"no block froze: over the learning rate the weight norm of {self.next_blocks()} {grew}; what is waited "
            f"for is {settings.threshold:.0%} or less, {settings.patience} log lines in a row, not before "
            f"{settings.earliest:.0%} of the run"
        )
