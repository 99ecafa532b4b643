"""Video MAE, progressive freezing and LayerLock: what is predicted once blocks are frozen, and a schedule for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layerlock.learn.plan import FixedPlan, Stage, SwitchLog, Tap, TapError
from layerlock.learn.plans.freezing import Freezing, Schedule
from layerlock.learn.targets import FeatureTarget, PatchKind, PatchTarget

LATENT = (
    *("keep_targets", "normalized", "latent_fraction", "full_clip"),
    *("patch_weight", "standardized", "average", "error"),
)
"""fields of a plan that say how features are predicted"""


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
        given = [f"plan.{name}" for name in LATENT if getattr(self, name) != getattr(Locking, name)]
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
