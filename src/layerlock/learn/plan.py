"""Plans: which layers learn at which step, and from which targets.

A plan is anything with `stage(step, log) -> Stage`, pure. A Stage is structural and hashable: what runs without
autograd, how deep a pass goes, which parameters have gradients and optimizer state all follow from it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Target:
    """What a loss predicts: pixels, or the output of block `layer` (one-based) on the clip itself.

    `frozen` layers are at most the stage's frozen prefix; a layer above it is `live` and is asked for by that name.
    `teacher` layers are those of the running average of the weights. `normalized` patches have mean 0 and deviation 1
    each (VideoMAE), `normalized` layers a mean of 0 and a deviation of 1 over the width of each token (V-JEPA).
    `gradient` lets gradients of the loss into a live target too; else targets are constants to it.
    """

    kind: Literal["pixels", "frozen", "live", "teacher"] = "pixels"
    layer: int = 0
    normalized: bool = False
    gradient: bool = False

    @property
    def name(self) -> str:
        """`pixels`, `h1`, `h2`, ..., or `t1`, `t2`, ... of a teacher."""
        return self.kind if self.layer == 0 else f"{'t' if self.kind == 'teacher' else 'h'}{self.layer}"


PIXELS = Target()


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One loss: taken from the context features after block `depth`, predicting `target`.

    `fraction` of all patches, a random subset per sample, is predicted; below 1 the target pass sees the subset alone
    unless `full_clip`. `masked` predicts the positions that the masking names, from a target pass on the full clip.
    `error` is the mean of squares or of absolute values. `detach` stops gradients here: those of deeper taps go no
    further down.
    """

    depth: int
    target: Target = PIXELS
    fraction: float = 1.0
    full_clip: bool = False
    masked: bool = False
    error: Literal["squared", "absolute"] = "squared"
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
    def has_teacher(self) -> bool:
        """Whether a target is a layer of the running average."""
        return any(tap.target.kind == "teacher" for tap in self.taps)

    @property
    def trains_targets(self) -> bool:
        """Whether gradients of a loss go into its target."""
        return any(tap.target.gradient for tap in self.taps)

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
        if len({(tap.fraction, tap.full_clip, tap.masked) for tap in self.taps if tap.target.layer}) > 1:
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
        if tap.target.kind in ("live", "teacher") and not 1 <= tap.target.layer <= depth:
            found.append(f"plan: predicts h{tap.target.layer} of {depth} blocks")
        if tap.target.gradient and (tap.target.kind != "live" or tap.detach):
            found.append("plan: gradients go into live targets alone, and where a loss is not detached")
        if not 0 < tap.fraction <= 1:
            found.append(f"plan: a loss on a fraction {tap.fraction} of the patches")
        if tap.target.kind == "pixels" and tap.fraction < 1:
            found.append("plan: the pixel loss is on all patches, or on those masked")
        if tap.masked and (tap.fraction < 1 or tap.full_clip):
            found.append("plan: a loss at the masked positions is on all of them, and its targets are of the full clip")
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
    """Anything that says which stage is in force; pure, so that a resumed run reads the same history.

    A plan may also have `weights(step, log)`, the factors of losses by their labels; 1 for what it leaves out.
    """

    def stage(self, step: int, log: SwitchLog) -> Stage:
        """The stage of the update number `step` (from 0), given the switches so far."""


def weights_of(plan: Plan, step: int, log: SwitchLog) -> dict[str, float]:
    """The factors of losses in update `step`; empty for a plan that says nothing of them."""
    weights = getattr(plan, "weights", None)
    return {} if weights is None else dict(weights(step, log))


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
