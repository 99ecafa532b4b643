"""How many blocks freeze, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layerlock.learn.plan import FixedPlan, Stage, Tap

ROUNDING = 1e-9
"""of the run: a switch so near its end is one at the end, which does not come"""


@dataclass(frozen=True, kw_only=True)
class Freezing(ABC):
    """How many blocks freeze: `first` at the first switch, `jump` more at each later one, never more than `last`.

    `frozen` blocks are so from the first step, which needs initial weights (`init_from`).
    """

    frozen: int | Literal["half"] = 0
    """blocks frozen from the first step on; half: the lower half of the encoder's"""
    first: int = 1
    """blocks frozen at the first switch"""
    jump: int = 1
    """blocks frozen at each later switch"""
    last: int = 1_000
    """maximum number of frozen blocks"""
    freeze_decoder: bool = False
    """allow freezing of the decoder's blocks too"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        return [f"plan.frozen: {self.frozen} is negative"] if self.frozen != "half" and self.frozen < 0 else []

    @abstractmethod
    def taps(self, frozen_so_far: Sequence[int], encoder_depth: int, depth: int) -> tuple[Tap, ...]:
        """The losses of a stage, given how many blocks are frozen in it and were in those before, from 0 on."""

    def stages(self, switches: Sequence[int], encoder_depth: int, depth: int) -> list[Stage]:
        """The first stage, and one after each switch to so many frozen blocks. ValueError where the first switch
        freezes none.
        """
        first = encoder_depth // 2 if self.frozen == "half" else self.frozen
        if switches and switches[0] <= first:
            raise ValueError(
                f"plan.frozen: {first} blocks are frozen from the start, {switches[0]} at the first switch"
            )
        frozen = [first, *switches]
        so_far = [tuple(dict.fromkeys([0, *frozen[: i + 1]])) for i in range(len(frozen))]
        return [Stage(frozen=counts[-1], last=depth, taps=self.taps(counts, encoder_depth, depth)) for counts in so_far]


@dataclass(frozen=True, kw_only=True)
class Schedule(Freezing):
    """When blocks freeze. All times are fractions of the run.

    From `start` on `first` blocks are frozen, then `jump` more every `interval`; `freezes` gives (time, frozen) pairs
    instead. `start=1` never freezes.
    """

    start: float = 1.0
    """first switch, as a fraction of the run; 1: never"""
    interval: float = 0.1
    """from one switch to the next, as a fraction of the run"""
    freezes: tuple[tuple[float, int], ...] = ()
    """(time, frozen blocks) pairs, in place of start, interval, first, jump and last"""

    def problems(self) -> list[str]:
        """What is wrong with the schedule itself, a line each."""
        if problems := super().problems():
            return problems
        if self.freezes:
            times, counts = zip(*self.freezes, strict=True)
            rising = list(times) == sorted(set(times)) and list(counts) == sorted(set(counts))
            if not rising or times[0] <= 0 or times[-1] >= 1 or counts[0] < 1:
                return ["plan.freezes: times must rise between 0 and 1, frozen counts from 1 on"]
        elif not 0 < self.start <= 1:
            return [f"plan.start: {self.start} must be above 0 and at most 1, a fraction of the run"]
        elif self.start < 1 and (self.interval <= 0 or min(self.first, self.jump, self.last) < 1):
            return ["plan.interval, plan.first, plan.jump and plan.last must be positive"]
        return []

    def schedule(self) -> list[tuple[float, int]]:
        """(time as a fraction of the run, frozen blocks) of every switch before the end."""
        if self.freezes:
            return [(time, count) for time, count in self.freezes if time < 1]
        switches: list[tuple[float, int]] = []
        while (time := self.start + len(switches) * self.interval) < 1 - ROUNDING:
            count = min(self.first + len(switches) * self.jump, self.last)
            if switches and count == switches[-1][1]:
                break
            switches.append((time, count))
        return switches

    def build(self, steps: int, encoder_depth: int, depth: int) -> FixedPlan:
        """The plan of a run of `steps` steps. Every stage keeps at least one step; ValueError where they do not fit."""
        times, switches = [0.0], list[int]()
        for time, count in self.schedule():
            times.append(time)
            switches.append(count)
        return spread(self.stages(switches, encoder_depth, depth), times, steps)


def spread(stages: Sequence[Stage], times: Sequence[float], steps: int) -> FixedPlan:
    """Stages that begin at `times`, fractions of `steps` steps; each keeps at least one step, else ValueError."""
    begins = [0]
    for time in times[1:]:
        begins.append(max(round(time * steps), begins[-1] + 1))
    if begins[-1] >= steps:
        raise ValueError(f"steps: {steps} are too few for {len(begins)} stages")
    return FixedPlan(tuple(zip(begins, stages, strict=True)))
