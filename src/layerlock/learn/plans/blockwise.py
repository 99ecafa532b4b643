"""Blockwise learning and its controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layerlock.learn.plan import FixedPlan, Stage, Tap
from layerlock.learn.plans.freezing import spread
from layerlock.learn.targets import PatchKind, PatchTarget


@dataclass(frozen=True, kw_only=True)
class Blockwise:
    """Blockwise learning (Roemer and Dickscheid, 2026) and its controls: the encoder cut into parts, local losses.

    Every part has a decoder of its own, which reconstructs masked patches from its output: in the paper their
    normalised pixels.
    `simultaneous`: all parts at once, no gradient crosses a cut. `sequential`: one part after the other, those below
    frozen. `deep-supervision`: the same losses at once, gradients cross. `end-to-end`: the last loss alone.
    """

    regime: Literal["simultaneous", "sequential", "deep-supervision", "end-to-end"] = "simultaneous"
    """in which order the parts learn, and whether gradients cross"""
    parts: int = 4
    """how many parts the encoder is cut into, equal ones without `cuts`"""
    cuts: tuple[int, ...] = ()
    """last block of each part, rising to the encoder's last, where parts are not equal: as many as `parts`"""
    times: tuple[float, ...] = ()
    """sequential: where the parts after the first begin, as fractions of the run; () for equal shares"""
    patches: PatchKind = "normalized"
    """what of the patches is predicted: pixels, each patch's with mean 0 and deviation 1, or changes over time"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = []
        if self.parts < 1:
            problems.append(f"plan.parts: {self.parts} is not positive")
        if list(self.cuts) != sorted(set(self.cuts)) or (self.cuts and self.cuts[0] < 1):
            problems.append(f"plan.cuts: {self.cuts} do not rise from block 1 on")
        elif self.cuts and self.parts != len(self.cuts):
            problems.append(f"plan.parts: {self.parts}, where plan.cuts end {len(self.cuts)}: {self.cuts}")
        if self.times and self.regime != "sequential":
            problems.append(f"plan.times: only used with the sequential regime, not {self.regime}")
        if list(self.times) != sorted(set(self.times)) or any(not 0 < time < 1 for time in self.times):
            problems.append(f"plan.times: {self.times} do not rise between 0 and 1")
        return problems

    def boundaries(self, encoder_depth: int) -> list[int]:
        """The last block of each part. ValueError where the cuts do not divide or cover the encoder."""
        if self.cuts:
            if self.cuts[-1] != encoder_depth:
                raise ValueError(f"plan.cuts: {self.cuts} end at block {self.cuts[-1]} of {encoder_depth}")
            return list(self.cuts)
        if encoder_depth % self.parts:
            raise ValueError(f"plan.parts: {self.parts} parts do not divide {encoder_depth} blocks; give plan.cuts")
        return [encoder_depth // self.parts * (part + 1) for part in range(self.parts)]

    def build(self, steps: int, encoder_depth: int, depth: int) -> FixedPlan:
        """The plan of a run of `steps` steps; ValueError where the parts do not fit."""
        ends = self.boundaries(encoder_depth)
        if self.regime != "sequential":
            kept = ends[-1:] if self.regime == "end-to-end" else ends
            taps = tuple(self._local(end, detach=self.regime == "simultaneous") for end in kept)
            return FixedPlan(((0, Stage(frozen=0, last=encoder_depth, taps=taps)),))
        begins = [0, *ends[:-1]]
        stages = [Stage(frozen=a, last=b, taps=(self._local(b),)) for a, b in zip(begins, ends, strict=True)]
        times = [0.0, *(self.times or [part / len(ends) for part in range(1, len(ends))])]
        if len(times) != len(stages):
            raise ValueError(f"plan.times: {len(self.times)} times for {len(stages) - 1} parts after the first")
        return spread(stages, times, steps)

    def _local(self, depth: int, *, detach: bool = False) -> Tap:
        return Tap(depth=depth, target=PatchTarget(self.patches), masked=True, detach=detach)
