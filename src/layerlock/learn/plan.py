"""Plans: which layers learn at which step, and from which targets.

A plan is anything with `stage(step, log) -> Stage`, pure. A Stage is structural and hashable: what runs without
autograd, how deep a pass goes, which parameters have gradients and optimizer state all follow from it. A plan that
decides by figures of the run has `observe` too (`learn/observed.py`).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

from layerlock.learn.targets import MODEL, OWN, PIXELS, FeatureTarget, PatchTarget, Source, Target, target_from

TapError = Literal["squared", "absolute", "smooth"]


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One loss: taken from the context features after block `depth`, predicting `target`.

    `fraction` of all patches, a random subset per sample, is predicted; below 1 the target pass sees the subset alone
    unless `full_clip`. `masked` predicts the positions that the masking names, from a target pass on the full clip.
    `error` is the mean of squares, of absolute values, or `smooth`: half the square below 1, |x| - 1/2 from there on.
    `motion_weight` above 0 weights the error of each patch by how much it changes over time (`change_weights`).
    `detach` stops gradients here: those of deeper taps go no further down.
    """

    depth: int
    target: Target = PIXELS
    fraction: float = 1.0
    full_clip: bool = False
    masked: bool = False
    error: TapError = "squared"
    motion_weight: float = 0.0
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

    @property
    def plain(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return dict(json.loads(json.dumps(asdict(self))))

    def label(self, tap: Tap) -> str:
        """A tap's name among those of its stage: its target, with its depth where losses are taken at several."""
        several = len({other.depth for other in self.taps}) > 1
        return f"{tap.target.name}@{tap.depth}" if several else tap.target.name

    @property
    def sources(self) -> tuple[Source, ...]:
        """The features that its targets are made of, each once."""
        return tuple(dict.fromkeys(source for tap in self.taps for source in tap.target.sources))

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that compute them, each once."""
        return tuple(dict.fromkeys(network for network, _ in self.sources))

    @property
    def latent(self) -> tuple[Tap, ...]:
        """The losses that predict features."""
        return tuple(tap for tap in self.taps if isinstance(tap.target, FeatureTarget))

    @property
    def over_time(self) -> bool:
        """Whether a target or the weights of a loss are changes over the frames of a patch, which needs several."""
        return any(tap.motion_weight or tap.target == PatchTarget("motion") for tap in self.taps)

    @property
    def trains_targets(self) -> bool:
        """Whether gradients of a loss go into its target."""
        return any(isinstance(tap.target, FeatureTarget) and tap.target.gradient for tap in self.taps)

    def blocks_of(self, network: str) -> tuple[int, ...]:
        """The blocks of a network that targets are made of, rising."""
        return tuple(sorted(block for name, block in self.sources if name == network))

    def problems(self, depth: int, encoder_depth: int, freeze_decoder: bool) -> list[str]:
        """What is wrong with this stage on `depth` blocks, of which the first `encoder_depth` see context alone; each
        line begins with the field.
        """
        problems = []
        limit = depth if freeze_decoder else encoder_depth
        if not 0 <= self.frozen <= limit:
            why = "" if freeze_decoder else " (decoder blocks are frozen only with freeze_decoder)"
            problems.append(f"stage.frozen: {self.frozen} frozen blocks, where 0 to {limit} can be{why}")
        if not self.frozen <= self.last <= depth:
            problems.append(f"stage.last: trains blocks {self.frozen + 1} to {self.last} of {depth}")
        if not self.taps:
            problems.append("stage.taps: a stage without a loss")
        for number, tap in enumerate(self.taps):
            problems += [f"stage.taps[{number}].{problem}" for problem in self._tap_problems(tap, depth, encoder_depth)]
        if self.trains_targets and any(tap.detach for tap in self.taps):
            problems.append("stage.taps: with gradients into targets no loss detaches: one backward goes through all")
        if len({self.label(tap) for tap in self.taps}) < len(self.taps):
            problems.append("stage.taps: two losses with one target at one depth")
        if any(len({tap.detach for tap in self.taps if tap.depth == depth}) > 1 for depth in range(depth + 1)):
            problems.append("stage.taps: losses at one depth detach together or not at all")
        if len({(tap.fraction, tap.full_clip, tap.masked) for tap in self.latent}) > 1:
            problems.append("stage.taps: latent losses of one stage share one subset of the patches")
        return problems

    def _tap_problems(self, tap: Tap, depth: int, encoder_depth: int) -> list[str]:
        problems = [f"target: {problem}" for problem in self._target_problems(tap.target, depth)]
        if not 1 <= tap.depth <= encoder_depth:
            problems.append(f"depth: a loss at depth {tap.depth}, where 1 to {encoder_depth} can be")
        elif tap.depth > self.last:
            problems.append(f"depth: a loss at depth {tap.depth}, above block {self.last}, the last that learns")
        if tap.depth < min(self.frozen, encoder_depth):
            problems.append(f"depth: a loss at depth {tap.depth}, below {self.frozen} frozen blocks, trains nothing")
        if not 0 < tap.fraction <= 1:
            problems.append(f"fraction: a loss on a fraction {tap.fraction} of the patches")
        elif isinstance(tap.target, PatchTarget) and tap.fraction < 1:
            problems.append(f"fraction: the loss on {tap.target.name} is on all patches, or on those masked")
        if tap.masked and (tap.fraction < 1 or tap.full_clip):
            problems.append(
                "masked: a loss at the masked positions is on all of them, its targets are of the full clip"
            )
        if tap.error not in get_args(TapError):
            problems.append(f"error: {tap.error!r} is none of {', '.join(get_args(TapError))}")
        if not 0 <= tap.motion_weight <= 1:
            problems.append(f"motion_weight: {tap.motion_weight} must be from 0 to 1")
        elif tap.motion_weight and not isinstance(tap.target, PatchTarget):
            problems.append(f"motion_weight: only for a loss on patches, not on {tap.target.name}")
        return problems

    def _target_problems(self, target: Target, depth: int) -> list[str]:
        """What is wrong with a target by itself, and against the blocks that its network has and that are frozen."""
        if not isinstance(target, PatchTarget | FeatureTarget):
            return [f"{target!r} is neither a PatchTarget nor a FeatureTarget"]
        if isinstance(target, PatchTarget) or target.problems() or target.network not in OWN:
            return target.problems()
        if target.blocks[-1] > depth:
            return [f"predicts {target.name} of {depth} blocks"]
        if target.network == MODEL and not target.live and target.blocks[-1] > self.frozen:
            return [
                f"predicts {target.name} with {self.frozen} blocks frozen; "
                "a target above what is frozen is live and has to be named so"
            ]
        return []


def stage_from(values: Mapping[str, Any]) -> Stage:
    """The stage that `Stage.plain` gave. KeyError or TypeError for anything else."""
    taps = tuple(Tap(**{**tap, "target": target_from(tap["target"])}) for tap in values["taps"])
    return Stage(**{**values, "taps": taps})


@dataclass(frozen=True)
class Switch:
    """An entry of the switch log: from update number `step` (from 0) on `stage` is in force.

    `reason` is why, in words, where a plan decided it by what it observed; empty where it was foretold.
    """

    step: int
    stage: Stage
    reason: str = ""


SwitchLog = tuple[Switch, ...]


class Plan(Protocol):
    """Anything that says which stage is in force; pure, so that a resumed run reads the same history.

    A plan may also have `weights(step, log)`, the factors of losses by their labels; 1 for what it leaves out. A label
    of another stage of the plan has no effect in this one; one that no stage has is an error. And it may have
    `observe(step, figures)`, as an `Observer`.
    """

    def stage(self, step: int, log: SwitchLog) -> Stage:
        """The stage of the update number `step` (from 0), given the switches so far."""


@dataclass(frozen=True)
class Decision:
    """What a plan decides by what it has observed: from the next update on `stage` is in force; why, in words."""

    stage: Stage
    reason: str


class Observer(Plan, Protocol):
    """A plan that decides by figures of the run.

    What `observe` decides is recorded in the switch log; `stage(step, log)` stays a pure function of what is recorded
    there, and has to give the stage that was decided for. What `observe` remembers is its own: a resumed run shows a
    fresh copy of the plan the same lines again. It may also have `conclusion()`: what it has to say at the end of the
    run, such as that what it waited for never came; empty for nothing.
    """

    def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
        """Called with each line of `metrics.jsonl`, written after `step` updates, without `timing` and `skipped`, which
        depend on the machine; not with that at the end of the run. None: all stays as it is.
        """


def weighted(plan: Plan) -> bool:
    """Whether a plan has factors of losses."""
    return getattr(plan, "weights", None) is not None


def weights_of(plan: Plan, step: int, log: SwitchLog) -> dict[str, float]:
    """The factors of losses in update `step`; empty for a plan that says nothing of them."""
    weights = getattr(plan, "weights", None)
    return {} if weights is None else dict(weights(step, log))


def weight_problems(weights: Mapping[str, float], stage: Stage, labels: Collection[str] | None) -> list[str]:
    """What is wrong with the factors of losses in `stage`, a line each; `labels` are those of all stages, None where
    not all are known.
    """
    own = [stage.label(tap) for tap in stage.taps]
    otherwise = {name for tap in stage.taps for name in (tap.target.name, f"{tap.target.name}@{tap.depth}")}
    problems = []
    for label, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number:
            problems.append(f"plan.weights: {weight!r} of {label} is not a number")
        elsewhere = labels is None or label in labels
        if label not in own and (not elsewhere or label in otherwise):
            problems.append(f"plan.weights: no loss is called {label!r}; those of the stage in force: {', '.join(own)}")
    return problems


@dataclass(frozen=True)
class FixedPlan:
    """Stages that begin at given steps, the first at 0."""

    timeline: tuple[tuple[int, Stage], ...]

    def __post_init__(self) -> None:
        """Raises ValueError where the steps do not rise from 0."""
        begins = [begin for begin, _ in self.timeline]
        if begins[:1] != [0] or begins != sorted(set(begins)):
            raise ValueError(f"plan.timeline: stages begin at steps {begins}, which do not rise from 0")

    def stage(self, step: int, log: SwitchLog = ()) -> Stage:
        """The stage of update `step`; the log is not read."""
        return self.timeline[bisect_right([begin for begin, _ in self.timeline], step) - 1][1]


def timeline(plan: Plan, steps: int) -> list[tuple[int, Stage]]:
    """(first step, stage) of every stage that a plan goes through in `steps` steps, log kept as a run keeps it; of an
    observer those that it goes through where it decides nothing.
    """
    if isinstance(plan, FixedPlan) and type(plan).stage is FixedPlan.stage:
        return [(begin, stage) for begin, stage in plan.timeline if begin < steps]
    stages: list[tuple[int, Stage]] = []
    log: SwitchLog = ()
    for step in range(steps):
        stage = plan.stage(step, log)
        if not stages or stage != stages[-1][1]:
            log += (Switch(step, stage),) if stages else ()
            stages.append((step, stage))
    return stages


def weighed(
    plan: Plan, steps: int, stages: Sequence[tuple[int, Stage]]
) -> Iterator[tuple[int, Stage, dict[str, float]]]:
    """(step, stage, factors of losses) of every update of a plan that goes through `stages`; none where it has no
    factors.
    """
    if not weighted(plan):
        return
    log: SwitchLog = ()
    ends = [*(begin for begin, _ in stages[1:]), steps]
    for (begin, stage), end in zip(stages, ends, strict=True):
        log += (Switch(begin, stage),) if begin else ()
        for step in range(begin, end):
            yield step, stage, weights_of(plan, step, log)
