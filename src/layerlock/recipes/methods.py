"""The other methods at a size that a CPU trains in minutes: VideoMAE, V-JEPA, blockwise learning and its controls."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config
from layerlock.learn.masking import MultiBlockMasking, TubeMasking
from layerlock.learn.plans import Blockwise, JointEmbedding, LiveLatents, Plans, Progressive
from layerlock.learn.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes.small import CENTRED, mae_tiny

LADDER = JointEmbedding(climb=True, start=0.5, interval=0.1, first=1, jump=2, last=8)


def _tiny(name: str, plan: Plans, masking: TubeMasking | MultiBlockMasking) -> Config:
    """Clips and optimizer of `mae-tiny`; ten blocks that all are the encoder's, decoders of two blocks beside it."""
    return replace(
        mae_tiny(),
        recipe=name,
        model=vit("tiny", patch=(4, 8, 8), position="sincos", gelu="exact", final_norm=True, **CENTRED),
        masking=masking,
        decoder=SeparateDecoding(width=96, depth=2, heads=3, mlp=384),
        plan=plan,
    )


def videomae_tiny() -> Config:
    """VideoMAE: tubes masked, normalised pixels of masked patches, a separate decoder."""
    return _tiny("videomae-tiny", Progressive(masked=True, normalized=True), TubeMasking(keep=0.25))


def _vjepa(name: str, plan: JointEmbedding) -> Config:
    base = _tiny(name, plan, MultiBlockMasking(group=8))
    return replace(
        base,
        model=replace(base.model, position="learned"),
        clip=replace(base.clip, jitter=0.8),
        optim=replace(base.optim, lr=5e-4, weight_decay=0.04, end_weight_decay=0.4, ema=0.99),
    )


def vjepa_tiny() -> Config:
    """V-JEPA: a predictor of what an averaged teacher makes of masked blocks (Table 9 in small)."""
    return _vjepa("vjepa-tiny", JointEmbedding())


def vjepa_layerlock_tiny() -> Config:
    """LayerLock on V-JEPA: the teacher's layer that is predicted climbs with what is frozen; four switches."""
    return _vjepa("vjepa-layerlock-tiny", LADDER)


def vjepa_layerlock_own_tiny() -> Config:
    """LayerLock on V-JEPA without a teacher: targets are the model's own frozen layers."""
    return _vjepa("vjepa-layerlock-own-tiny", replace(LADDER, teacher=False))


def live_latents_tiny() -> Config:
    """MAE that also predicts its own live layers, with nothing frozen: it collapses (Table 3)."""
    return replace(mae_tiny(), recipe="live-latents-tiny", plan=LiveLatents(layers=(2, 4, 6)))


def _blockwise(name: str, plan: Blockwise) -> Config:
    return _tiny(name, replace(plan, parts=5), TubeMasking(keep=0.25))


def blockwise_tiny() -> Config:
    """Blockwise: five parts of two blocks, each with its own loss, no gradient between them."""
    return _blockwise("blockwise-tiny", Blockwise())


def blockwise_sequential_tiny() -> Config:
    """Blockwise, one part after the other: those below are frozen."""
    return _blockwise("blockwise-sequential-tiny", Blockwise(regime="sequential"))


def deep_supervision_tiny() -> Config:
    """The control of blockwise learning: the same losses, gradients through all blocks."""
    return _blockwise("deep-supervision-tiny", Blockwise(regime="deep-supervision"))
