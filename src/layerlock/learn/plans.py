"""The plans of the papers, as settings of a config: `build` makes them for a number of steps and blocks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from layerlock.learn.plan import Decision, FixedPlan, Stage, SwitchLog, Tap, TapError
from layerlock.learn.targets import MODEL, OWN, TEACHER, FeatureTarget, PatchKind, PatchTarget

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


@dataclass(frozen=True, kw_only=True)
class Locking(Freezing):
    """What is predicted once blocks are frozen: patches still, or latent targets (LayerLock section 3.3).

    With `target="frozen"` the loss predicts the output of the last frozen block, with `keep_targets` all targets so far
    (Table 5).
    """

    target: Literal["pixels", "frozen"] = "pixels"
    """what is predicted once blocks are frozen"""
    keep_targets: bool = False
    """keep predicting all targets so far, from the patches on"""
    normalized: bool = False
    """latent targets with mean 0 and deviation 1 in each token"""
    latent_fraction: float = 1.0
    """share of the patches that latent losses are on, a random subset for each clip"""
    full_clip: bool = False
    """compute the targets of a subset on the full clip, not on the subset alone"""
    masked: bool = False
    """take losses at masked positions alone, not at all"""
    patches: PatchKind = "pixels"
    """what of the patches is predicted: pixels, each patch's with mean 0 and deviation 1, or changes over time"""
    motion_weight: float = 0.0
    """share a of the weight 1 - a + a e / mean(e) of each patch's error in the loss on patches, where e is how much the
    patch changes over time (its neighbouring frames' mean squared difference) and the mean is over the patches that are
    predicted together: the clips of a micro-batch, or of a mask group"""
    patch_weight: float = 0.0
    """factor of the loss on patches once features are predicted; 0: that loss is dropped"""
    standardized: bool = False
    """features that are predicted have mean 0 and deviation 1 in each dimension, as measured after the switch"""
    average: int = 1
    """how many of the last frozen blocks are standardised and averaged to one target (data2vec 2.0)"""
    error: TapError = "squared"
    """of latent losses: mean of squares, of absolute values, or smooth between them"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = super().problems()
        if not 0 < self.latent_fraction <= 1:
            problems.append(
                f"plan.latent_fraction: {self.latent_fraction} must be above 0 and at most 1, a share of the patches"
            )
        latent = (
            "keep_targets",
            "normalized",
            "latent_fraction",
            "full_clip",
            "patch_weight",
            "standardized",
            "average",
        )
        given = [f"plan.{name}" for name in (*latent, "error") if getattr(self, name) != getattr(Locking, name)]
        if self.target == "pixels" and given:
            problems.append(f"{', '.join(given)}: only used with --plan.target frozen, not with pixels")
        if self.full_clip and self.latent_fraction == 1:
            problems.append("plan.full_clip: only used with plan.latent_fraction below 1")
        if self.masked and self.latent_fraction < 1:
            problems.append(
                "plan.masked and plan.latent_fraction: use only one; both set the positions of latent losses"
            )
        if not 0 <= self.motion_weight <= 1:
            problems.append(f"plan.motion_weight: {self.motion_weight} must be from 0 to 1")
        kept = self.keep_targets or self.patch_weight
        if self.motion_weight and self.target == "frozen" and self.frozen and not kept:
            problems.append("plan.motion_weight: there is no loss on patches with plan.frozen and --plan.target frozen")
        if self.patch_weight < 0:
            problems.append(f"plan.patch_weight: {self.patch_weight} is negative")
        if self.patch_weight and self.keep_targets:
            problems.append("plan.patch_weight and plan.keep_targets: use only one; both keep patches as a target")
        if self.average < 1:
            problems.append(f"plan.average: {self.average} is not positive")
        return problems

    def taps(self, frozen_so_far: Sequence[int], encoder_depth: int, depth: int) -> tuple[Tap, ...]:
        """A loss on pixels, or on the latest of the frozen layers, or on all so far."""
        if self.target == "pixels":
            layers: Sequence[int] = [0]
        else:
            layers = frozen_so_far if self.keep_targets else frozen_so_far[-1:]
        if self.patch_weight and list(layers) != [0]:
            layers = [0, *layers]
        return tuple(self._tap(layer, encoder_depth) for layer in layers)

    def _tap(self, layer: int, encoder_depth: int) -> Tap:
        if layer == 0:
            target = PatchTarget(self.patches)
            return Tap(depth=encoder_depth, target=target, masked=self.masked, motion_weight=self.motion_weight)
        blocks = tuple(range(max(1, layer + 1 - self.average), layer + 1))
        return Tap(
            depth=encoder_depth,
            target=FeatureTarget(blocks, normalized=self.normalized, standardized=self.standardized),
            fraction=self.latent_fraction,
            full_clip=self.full_clip,
            masked=self.masked,
            error=self.error,
        )


@dataclass(frozen=True, kw_only=True)
class Progressive(Locking, Schedule):
    """Progressive freezing by a schedule, with or without latent targets (LayerLock sections 3.3 and 4.1).

    Without freezing it is plain MAE, and with `masked` and `normalized` patches VideoMAE.
    """

    def build(self, steps: int, encoder_depth: int, depth: int) -> FixedPlan:
        """As every schedule's; with a factor for the loss on patches where one is kept."""
        fixed = super().build(steps, encoder_depth, depth)
        return PatchWeighted(fixed.timeline, self.patch_weight) if self.patch_weight else fixed


@dataclass(frozen=True, kw_only=True)
class Plateau(Locking):
    """Progressive freezing whose switches come when the logged loss of the stage no longer falls.

    At each log line the mean loss of the last `lines` lines is compared with that of the `lines` before them, all of
    the stage in force; where it fell by less than a share `threshold`, `patience` lines in a row, `first` blocks
    freeze, or `jump` more, never more than `last` or than the encoder has. No stage but the last is shorter than
    `shortest` or, up to the next log line, longer than `longest`. Our own: LayerLock has its times from a schedule.
    """

    lines: int = 5
    """log lines that are averaged"""
    threshold: float = 0.01
    """a loss that falls by a smaller share of itself no longer falls"""
    patience: int = 2
    """log lines in a row at which it no longer falls"""
    shortest: float = 0.05
    """shortest stage, as a fraction of the run"""
    longest: float = 0.5
    """longest stage but the last, as a fraction of the run"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = super().problems()
        problems += [
            f"plan.{name}: {getattr(self, name)} is not positive"
            for name in ("first", "jump", "last", "lines", "patience", "threshold")
            if getattr(self, name) <= 0
        ]
        if not 0 <= self.shortest <= self.longest <= 1:
            problems.append(
                f"plan.shortest: {self.shortest}, plan.longest: {self.longest}, must be ascending fractions of the run"
            )
        return problems

    def build(self, steps: int, encoder_depth: int, depth: int) -> PlateauPlan:
        """The plan of a run of `steps` steps."""
        most = min(self.last, depth if self.freeze_decoder else encoder_depth)
        switches = [*range(min(self.first, most), most, self.jump), most]
        return PlateauPlan(self, tuple(self.stages(switches, encoder_depth, depth)), steps)


class PlateauPlan:
    """`stages` one after the other, each until its loss no longer falls, as `Plateau` says."""

    def __init__(self, settings: Plateau, stages: tuple[Stage, ...], steps: int) -> None:
        self.settings, self.stages, self.steps = settings, stages, steps
        self.number, self.since, self.flat = 0, 0, 0
        """the stage, the step at which it began, log lines in a row at which its loss did not fall"""
        self.losses: list[float] = []

    def stage(self, step: int, log: SwitchLog) -> Stage:
        """The one decided for last."""
        return log[-1].stage if log else self.stages[0]

    def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
        """The factor of a loss on patches that is kept."""
        weight = self.settings.patch_weight
        return patch_factor(self.stage(step, log), weight) if weight else {}

    def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
        """The next stage, once the loss of this one no longer falls or it has lasted long enough."""
        if self.number + 1 == len(self.stages):
            return None
        self.losses.append(float(figures["loss"]))
        reason = self._reason((step - self.since) / self.steps)
        if not reason:
            return None
        self.number, self.since, self.flat, self.losses = self.number + 1, step, 0, []
        return Decision(self.stages[self.number], reason)

    def _reason(self, lasted: float) -> str:
        """Why the stage, which has lasted such a fraction of the run, is to end; empty where it is not."""
        settings, n = self.settings, self.settings.lines
        fall = None
        if len(self.losses) >= 2 * n:
            before, now = sum(self.losses[-2 * n : -n]) / n, sum(self.losses[-n:]) / n
            fall = (before - now) / abs(before) if before else 0.0
            self.flat = self.flat + 1 if fall < settings.threshold else 0
        if lasted + ROUNDING < settings.shortest:
            return ""
        if fall is not None and self.flat >= settings.patience:
            return (
                f"the loss changed by {0.0 - fall:+.2%} from {n} log lines to the next {n}; "
                f"{self.flat} lines in a row it fell by less than {settings.threshold:.2%}"
            )
        return f"it has lasted {settings.longest:.0%} of the run" if lasted + ROUNDING >= settings.longest else ""


@dataclass(frozen=True, kw_only=True)
class JointEmbedding(Schedule):
    """V-JEPA: predicts layer-normed features of a teacher at masked positions, by absolute error.

    Without freezing the target is the last layer. With it (LayerLock on V-JEPA, section 3.5 and Table 9) the target
    climbs: the last frozen layer, block 1 before the first switch. With `teacher=False` targets are the model's own.
    """

    teacher: bool = True
    """targets from the running average of the weights; else from the model itself"""
    climb: bool = False
    """predict the last frozen layer, not the last of all"""

    def taps(self, frozen_so_far: Sequence[int], encoder_depth: int, depth: int) -> tuple[Tap, ...]:
        """One loss, on the features after block `max(1, frozen)` or after the last."""
        frozen = frozen_so_far[-1]
        layer = max(1, frozen) if self.climb else depth
        live = not self.teacher and layer > frozen
        target = FeatureTarget((layer,), TEACHER if self.teacher else MODEL, live=live, normalized=True)
        return (Tap(depth=encoder_depth, target=target, masked=True, error="absolute"),)


@dataclass(frozen=True, kw_only=True)
class Distill(Schedule):
    """Predicts features of a frozen encoder: of a published one, which is distilled, or of one's own, trained before (a
    static teacher: SALT, arXiv 2509.24317).

    Freezing saves gradients, as everywhere; with `target="frozen"` it is LayerLock that begins with these features in
    place of pixels.
    """

    network: str = ""
    """the encoder: a run folder, hf:NAME, 4ds:FILE.npz, an authors' .pth (docs/encoders.md)"""
    blocks: tuple[int, ...] = ()
    """its blocks that are predicted, counted from one, averaged where they are several; (): the last"""
    normalized: bool = True
    """each token with mean 0 and deviation 1 over its width; of several blocks each is, whatever this says"""
    target: Literal["network", "frozen"] = "network"
    """what is predicted once blocks are frozen: the encoder's features, or the last frozen block"""
    masked: bool = False
    """take losses at masked positions alone, not at all"""
    error: TapError = "smooth"
    """of features: mean of squares, of absolute values, or smooth between them"""
    patches: PatchKind | None = None
    """what of the patches is predicted beside the features; None: nothing"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = super().problems()
        if not self.network or self.network in OWN:
            problems.append(f"plan.network: {self.network!r} names no frozen encoder (docs/encoders.md)")
        elif wrong := FeatureTarget(self.blocks, self.network).problems():
            problems += [f"plan.{problem}" for problem in wrong]
        if self.target == "frozen" and not self.schedule():
            problems.append("plan.target: no block is ever frozen, so there is no frozen block to predict")
        if self.target == "frozen" and self.frozen:
            problems.append(
                "plan.frozen: with plan.target frozen the features of plan.network would never be predicted"
            )
        return problems

    def taps(self, frozen_so_far: Sequence[int], encoder_depth: int, depth: int) -> tuple[Tap, ...]:
        """A loss on features, and one on patches where they are asked for."""
        frozen = frozen_so_far[-1]
        target = FeatureTarget(self.blocks, self.network, normalized=self.normalized)
        if self.target == "frozen" and frozen:
            target = FeatureTarget((frozen,), normalized=self.normalized)
        features = Tap(depth=encoder_depth, target=target, masked=self.masked, error=self.error)
        if self.patches is None:
            return (features,)
        return (Tap(depth=encoder_depth, target=PatchTarget(self.patches), masked=self.masked), features)


@dataclass(frozen=True, kw_only=True)
class LiveLatents:
    """MAE with losses on its own live layers and nothing frozen, which collapses (Table 3)."""

    layers: tuple[int, ...] = (1,)
    """blocks whose output is predicted beside the pixels"""
    weight: float = 1.0
    """factor of the latent losses"""
    ramp: Literal["constant", "cosine"] = "constant"
    """whether that factor is there from the start, or rises from 0 along half a cosine over the run"""
    stop_gradient: bool = False
    """targets are constants to the loss; else its gradients go into both sides, as of any other loss"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = []
        if not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 1:
            problems.append(f"plan.layers: {self.layers} must be different block numbers, counted from 1")
        if self.weight <= 0:
            problems.append(f"plan.weight: {self.weight} is not positive")
        return problems

    def build(self, steps: int, encoder_depth: int, depth: int) -> WeightedPlan:
        """The plan of a run of `steps` steps."""
        through = not self.stop_gradient
        latent = tuple(
            Tap(depth=encoder_depth, target=FeatureTarget((layer,), live=True, gradient=through))
            for layer in self.layers
        )
        stage = Stage(frozen=0, last=depth, taps=(Tap(depth=encoder_depth), *latent))
        return WeightedPlan(((0, stage),), steps=steps, weight=self.weight, ramp=self.ramp)


@dataclass(frozen=True)
class PatchWeighted(FixedPlan):
    """Fixed stages that keep a loss on patches, with a factor, beside latent ones."""

    weight: float

    def weights(self, step: int, log: SwitchLog = ()) -> dict[str, float]:
        """The factor of the loss on patches in update `step`."""
        return patch_factor(self.stage(step), self.weight)


def patch_factor(stage: Stage, weight: float) -> dict[str, float]:
    """The factor of the loss on patches, by its label, where it is kept beside latent ones."""
    return {stage.label(tap): weight for tap in stage.taps if tap not in stage.latent} if stage.latent else {}


@dataclass(frozen=True)
class WeightedPlan(FixedPlan):
    """Fixed stages whose latent losses have a factor, constant or rising."""

    steps: int
    weight: float
    ramp: Literal["constant", "cosine"]

    def weights(self, step: int, log: SwitchLog = ()) -> dict[str, float]:
        """The factor of each latent loss in update `step`."""
        stage = self.stage(step)
        rise = 1.0 if self.ramp == "constant" else 0.5 * (1 - math.cos(math.pi * step / max(self.steps - 1, 1)))
        return {stage.label(tap): self.weight * rise for tap in stage.latent}


@dataclass(frozen=True, kw_only=True)
class Blockwise:
    """Blockwise learning (Roemer and Dickscheid, 2026) and its controls: the encoder cut into parts, local losses.

    Every part has a decoder of its own, which reconstructs the normalised pixels of masked patches from its output.
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
            taps = tuple(_local(end, detach=self.regime == "simultaneous") for end in kept)
            return FixedPlan(((0, Stage(frozen=0, last=encoder_depth, taps=taps)),))
        begins = [0, *ends[:-1]]
        stages = [Stage(frozen=a, last=b, taps=(_local(b),)) for a, b in zip(begins, ends, strict=True)]
        times = [0.0, *(self.times or [part / len(ends) for part in range(1, len(ends))])]
        if len(times) != len(stages):
            raise ValueError(f"plan.times: {len(self.times)} times for {len(stages) - 1} parts after the first")
        return spread(stages, times, steps)


def _local(depth: int, *, detach: bool = False) -> Tap:
    return Tap(depth=depth, target=PatchTarget("normalized"), masked=True, detach=detach)


Plans = Progressive | Plateau | JointEmbedding | Distill | LiveLatents | Blockwise
"""the plans that a config can name"""
