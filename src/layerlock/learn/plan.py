"""Plans: which layers learn at which step, and from which targets.

A plan is anything with `stage(step, log) -> Stage`, pure. A Stage is structural and hashable: what runs without
autograd, how deep a pass goes, which parameters have gradients and optimizer state all follow from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Target:
    """What a loss predicts: pixels, or the output of block `layer` (one-based) on the clip itself.

    `frozen` layers are at most the stage's frozen prefix; a layer above it is `live` and is asked for by that name.
    """

    kind: Literal["pixels", "frozen", "live"] = "pixels"
    layer: int = 0

    @property
    def name(self) -> str:
        """`pixels`, `h1`, `h2`, ..."""
        return self.kind if self.layer == 0 else f"h{self.layer}"


PIXELS = Target()


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One loss: taken from the context features after block `depth`, predicting `target`.

    `fraction` of all patches, a random subset per sample, is predicted; below 1 the target pass sees the subset alone
    unless `full_clip`. `detach` stops gradients here: those of deeper taps go no further down.
    """

    depth: int
    target: Target = PIXELS
    fraction: float = 1.0
    full_clip: bool = False
    detach: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with one structure: blocks `frozen` + 1 .. `last` learn from `taps`.

    Frozen are the patch projection, the positions added to it and blocks 1 .. `frozen`, where `frozen` is above 0.
    """

    frozen: int
    last: int
    taps: tuple[Tap, ...]

    @property
    def targets(self) -> str:
        """Names of the targets, for people."""
        return "+".join(self.label(tap) for tap in self.taps)

    def label(self, tap: Tap) -> str:
        """A tap's name among those of its stage: its target, with its depth where losses are taken at several."""
        several = len({other.depth for other in self.taps}) > 1
        return f"{tap.target.name}@{tap.depth}" if several else tap.target.name

    @property
    def target_depth(self) -> int:
        """The deepest block that the target pass runs; 0 where pixels are the only target."""
        return max((tap.target.layer for tap in self.taps), default=0)

    def problems(self, depth: int, encoder_depth: int, freeze_decoder: bool) -> list[str]:
        """What is wrong with this stage on `depth` blocks, of which the first `encoder_depth` see context alone."""
        found = []
        limit = depth if freeze_decoder else encoder_depth
        if not 0 <= self.frozen <= limit:
            why = "" if freeze_decoder else " (decoder blocks are frozen only with freeze_decoder)"
            found.append(f"plan: {self.frozen} frozen blocks, where 0 to {limit} can be{why}")
        if not self.frozen <= self.last <= depth:
            found.append(f"plan: trains blocks {self.frozen + 1} to {self.last} of {depth}")
        if not self.taps:
            found.append("plan: a stage without a loss")
        for tap in self.taps:
            found += self._tap_problems(tap, depth, encoder_depth)
        if len({self.label(tap) for tap in self.taps}) < len(self.taps):
            found.append("plan: two losses with one target at one depth")
        if any(len({tap.detach for tap in self.taps if tap.depth == depth}) > 1 for depth in range(depth + 1)):
            found.append("plan: losses at one depth detach together or not at all")
        if len({(tap.fraction, tap.full_clip) for tap in self.taps if tap.target.layer}) > 1:
            found.append("plan: latent losses of one stage share one subset of the patches")
        return found

    def _tap_problems(self, tap: Tap, depth: int, encoder_depth: int) -> list[str]:
        found = []
        if not 1 <= tap.depth <= encoder_depth:
            found.append(f"plan: a loss at depth {tap.depth}, where 1 to {encoder_depth} can be")
        if tap.target.kind == "frozen" and not 1 <= tap.target.layer <= self.frozen:
            found.append(
                f"plan: predicts h{tap.target.layer} with {self.frozen} blocks frozen; "
                "a target above what is frozen is live and has to be named so"
            )
        if tap.target.kind == "live" and not 1 <= tap.target.layer <= depth:
            found.append(f"plan: predicts h{tap.target.layer} of {depth} blocks")
        if not 0 < tap.fraction <= 1:
            found.append(f"plan: a loss on a fraction {tap.fraction} of the patches")
        if tap.target.kind == "pixels" and tap.fraction < 1:
            found.append("plan: the pixel loss is on all patches")
        if tap.depth < min(self.frozen, encoder_depth):
            found.append(f"plan: a loss at depth {tap.depth}, below {self.frozen} frozen blocks, trains nothing")
        return found


@dataclass(frozen=True)
class Switch:
    """An entry of the switch log: from `step` on another stage is in force."""

    step: int
    stage: str


SwitchLog = tuple[Switch, ...]


class Plan(Protocol):
    """Anything that says which stage is in force; pure, so that a resumed run reads the same history."""

    def stage(self, step: int, log: SwitchLog) -> Stage:
        """The stage of the update number `step` (from 0), given the switches so far."""


@dataclass(frozen=True)
class FixedPlan:
    """Stages that begin at given steps, the first at 0."""

    timeline: tuple[tuple[int, Stage], ...]

    def stage(self, step: int, log: SwitchLog = ()) -> Stage:
        """The stage of update `step`; the log is not read."""
        return self.timeline[bisect_right([begin for begin, _ in self.timeline], step) - 1][1]


def timeline(plan: Plan, steps: int) -> list[tuple[int, Stage]]:
    """(first step, stage) of every stage that a plan goes through in `steps` steps, log kept as a run keeps it."""
    if isinstance(plan, FixedPlan):
        return [(begin, stage) for begin, stage in plan.timeline if begin < steps]
    found: list[tuple[int, Stage]] = []
    log: SwitchLog = ()
    for step in range(steps):
        stage = plan.stage(step, log)
        if not found or stage != found[-1][1]:
            log += (Switch(step, stage.targets),) if found else ()
            found.append((step, stage))
    return found


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Progressive freezing, with or without latent targets (LayerLock sections 3.3 and 4.1).

    All times are fractions of the run. From `start` on, `first` blocks are frozen, then `jump` more every `interval`,
    never more than `last`; `freezes` gives (time, frozen) pairs instead. With `target="frozen"` the loss predicts the
    output of the last frozen block, with `keep_targets` all targets so far (Table 5). `start=1` never freezes: plain
    MAE.
    """

    target: Literal["pixels", "frozen"] = "pixels"
    """what is predicted once blocks are frozen"""
    start: float = 1.0
    """first switch, as a fraction of the run; 1: never"""
    interval: float = 0.1
    """from one switch to the next, as a fraction of the run"""
    first: int = 1
    """blocks frozen at the first switch"""
    jump: int = 1
    """blocks frozen at each later switch"""
    last: int = 1_000
    """most blocks ever frozen"""
    freezes: tuple[tuple[float, int], ...] = ()
    """(time, frozen blocks) pairs, in place of the five fields above"""
    keep_targets: bool = False
    """keep predicting all targets so far"""
    latent_fraction: float = 1.0
    """share of the patches that latent losses are on, a random subset for each clip"""
    full_clip: bool = False
    """compute the targets of a subset on the full clip, not on the subset alone"""
    freeze_decoder: bool = False
    """allow to freeze into the decoder's blocks"""

    def problems(self) -> list[str]:
        """What is wrong with the schedule itself, a line each."""
        found = []
        if self.freezes:
            times, counts = zip(*self.freezes, strict=True)
            rising = list(times) == sorted(set(times)) and list(counts) == sorted(set(counts))
            if not rising or times[0] <= 0 or times[-1] >= 1 or counts[0] < 1:
                found.append("plan.freezes: times must rise between 0 and 1, frozen counts from 1 on")
        elif not 0 < self.start <= 1:
            found.append(f"plan.start: {self.start} is not a fraction of the run above 0")
        elif self.start < 1 and (self.interval <= 0 or self.first < 1 or self.jump < 1):
            found.append("plan.interval, plan.first and plan.jump must be positive")
        if not 0 < self.latent_fraction <= 1:
            found.append(f"plan.latent_fraction: {self.latent_fraction} is not a share of the patches")
        if self.target == "pixels" and (self.latent_fraction < 1 or self.keep_targets or self.full_clip):
            found.append("plan.latent_fraction, keep_targets and full_clip say nothing with plan.target pixels")
        if self.full_clip and self.latent_fraction == 1:
            found.append("plan.full_clip: with all patches as targets the target pass has the full clip already")
        return found

    def schedule(self) -> list[tuple[float, int]]:
        """(time as a fraction of the run, frozen blocks) of every switch before the end."""
        if self.freezes:
            return [(time, count) for time, count in self.freezes if time < 1]
        found: list[tuple[float, int]] = []
        while (time := self.start + len(found) * self.interval) < 1:
            count = min(self.first + len(found) * self.jump, self.last)
            if found and count == found[-1][1]:
                break
            found.append((time, count))
        return found

    def build(self, steps: int, encoder_depth: int, depth: int) -> FixedPlan:
        """The plan of a run of `steps` steps. Every stage keeps at least one step; ValueError where they do not fit."""
        begins, frozen = [0], [0]
        for time, count in self.schedule():
            begins.append(max(round(time * steps), begins[-1] + 1))
            frozen.append(count)
        if begins[-1] >= steps:
            raise ValueError(f"steps: {steps} are too few for {len(begins)} stages")
        stages = [self._stage(frozen[: i + 1], encoder_depth, depth) for i in range(len(frozen))]
        return FixedPlan(tuple(zip(begins, stages, strict=True)))

    def _stage(self, frozen_so_far: Sequence[int], encoder_depth: int, depth: int) -> Stage:
        count = frozen_so_far[-1]
        if self.target == "pixels":
            layers: Sequence[int] = [0]
        else:
            layers = frozen_so_far if self.keep_targets else [count]
        taps = tuple(self._tap(layer, encoder_depth) for layer in layers)
        return Stage(frozen=count, last=depth, taps=taps)

    def _tap(self, layer: int, encoder_depth: int) -> Tap:
        if layer == 0:
            return Tap(depth=encoder_depth)
        return Tap(
            depth=encoder_depth, target=Target("frozen", layer), fraction=self.latent_fraction, full_clip=self.full_clip
        )
