"""Plans that predict features alone or beside patches: V-JEPA, distillation, live latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layerlock.learn.plan import FixedPlan, Stage, SwitchLog, Tap, TapError
from layerlock.learn.plans.freezing import Schedule
from layerlock.learn.targets import MODEL, OWN, TEACHER, FeatureTarget, PatchKind, PatchTarget


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
