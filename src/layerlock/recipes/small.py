"""Every method at three sizes of our own: `-nano` for minutes on a CPU, `-tiny` for an hour, `-small` for one GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import Maskings, MultiBlockMasking, RandomMasking, TubeMasking
from layerlock.learn.plans import Auto, Blockwise, Distill, JointEmbedding, LiveLatents, Plans, Plateau, Progressive
from layerlock.model.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes.record import Recipe

CENTRED = {"mean": (0.45, 0.45, 0.45), "std": (0.25, 0.25, 0.25)}
"""The LayerLock paper feeds pixels in [0, 1] as they are.

In runs this short the brightness that all patches share would then stay the largest part of every token for thousands
of steps; centred, the model begins with what tells patches apart.
"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a size is made of; every method is made from it."""

    mae: Config
    """clips, model, optimizer and a decoder in the backbone: a video MAE"""
    keep: float
    """share of the tokens, and of the tubes, that the model sees"""
    decoder: SeparateDecoding
    """beside the backbone, whose blocks are then all the encoder's"""
    patches: Progressive
    """what of the patches is predicted, and where"""
    freezing: Progressive
    """with patches as targets"""
    lock: Progressive
    """with latent targets"""
    plateau: Plateau
    auto: Auto
    sparse: float
    """share of the patches that sparse latent losses are on"""
    live: tuple[int, ...]
    ladder: JointEmbedding
    teacher_decay: float
    blockwise: Blockwise
    published: str
    """encoder that is distilled"""


MOTION: dict[str, Any] = {"masked": True, "patches": "motion"}
"""Masked tubelets as their changes over time, which weigh more than their mean: pixels say little of motion."""
NANO = Scale(
    mae=Config(
        recipe="nano",
        steps=3_000,
        batch=32,
        heads="solved",
        clip=ClipConfig(frames=16, stride=1, size=32, resize=1.25, flip=True),
        model=vit("nano", patch=(4, 8, 8), **CENTRED),
        masking=RandomMasking(keep=0.25, predict=0.5),
        decoder=BackboneDecoding(blocks=2),
        optim=OptimConfig(lr=1.5e-3, warmup=0.03, mini_warmup=0.005, weight_decay=0.05),
        run=RunConfig(log_every=20, checkpoint_every=500),
    ),
    keep=0.25,
    decoder=SeparateDecoding(width=64, depth=2, heads=2, mlp=256),
    patches=Progressive(**MOTION),
    freezing=Progressive(start=0.8, interval=0.05, last=2, **MOTION),
    lock=Progressive(target="frozen", start=0.8, interval=0.05, last=2, patch_weight=1.0, standardized=True, **MOTION),
    plateau=Plateau(target="frozen", last=4, lines=10, threshold=0.02, patience=3, longest=0.7, **MOTION),
    auto=Auto(target="frozen", lines=10, patch_weight=1.0, standardized=True, **MOTION),
    sparse=0.25,
    live=(2, 4, 6),
    ladder=JointEmbedding(climb=True, start=0.5, interval=0.1, first=1, jump=2, last=6),
    teacher_decay=0.99,
    blockwise=Blockwise(parts=4, patches="motion"),
    published="hf:MCG-NJU/videomae-base",
)
TINY = Scale(
    mae=Config(
        recipe="tiny",
        steps=1_000,
        batch=32,
        clip=ClipConfig(frames=16, stride=1, size=48, resize=1.15, flip=True),
        model=vit("tiny", patch=(4, 8, 8), **CENTRED),
        masking=RandomMasking(keep=0.25),
        decoder=BackboneDecoding(blocks=2),
        optim=OptimConfig(lr=1.5e-3, warmup=0.03, mini_warmup=0.005, weight_decay=0.05),
        run=RunConfig(log_every=10, checkpoint_every=200),
    ),
    keep=0.25,
    decoder=SeparateDecoding(width=96, depth=2, heads=3, mlp=384),
    patches=Progressive(),
    freezing=Progressive(start=0.6, interval=0.1, last=4),
    lock=Progressive(target="frozen", start=0.6, interval=0.1, last=4),
    plateau=Plateau(target="frozen", last=4, lines=5, threshold=0.02, patience=3, shortest=0.05, longest=0.6),
    auto=Auto(target="frozen", lines=5),
    sparse=0.25,
    live=(2, 4, 6),
    ladder=JointEmbedding(climb=True, start=0.5, interval=0.1, first=1, jump=2, last=8),
    teacher_decay=0.99,
    blockwise=Blockwise(parts=5),
    published="hf:MCG-NJU/videomae-base",
)
SMALL = Scale(
    mae=Config(
        recipe="small",
        steps=50_000,
        batch=128,
        clip=ClipConfig(frames=16, stride=2, size=112, resize=1.15, flip=True),
        model=vit("small", patch=(2, 16, 16), **CENTRED),
        masking=RandomMasking(keep=0.10),
        decoder=BackboneDecoding(blocks=4),
        optim=OptimConfig(lr=6e-4, warmup=0.03, mini_warmup=0.004, weight_decay=0.05),
        run=RunConfig(workers=8, log_every=20, checkpoint_every=500),
    ),
    keep=0.10,
    decoder=SeparateDecoding(width=128, depth=4, heads=4, mlp=512),
    patches=Progressive(),
    freezing=Progressive(start=0.6, interval=0.05, last=7),
    lock=Progressive(target="frozen", start=0.6, interval=0.05, last=7),
    plateau=Plateau(target="frozen", last=7, lines=50, threshold=0.01, patience=5, shortest=0.03, longest=0.6),
    auto=Auto(target="frozen", lines=50, patience=5),
    sparse=0.10,
    live=(2, 4, 6, 8),
    ladder=JointEmbedding(climb=True, start=0.4, interval=0.05, first=1, jump=1, last=12),
    teacher_decay=0.998,
    blockwise=Blockwise(cuts=(4, 7, 11, 14)),
    published="hf:facebook/vjepa2-vitl-fpc64-256",
)


def _backbone(scale: Scale, plan: Plans) -> Config:
    return replace(scale.mae, plan=plan)


def _beside(scale: Scale, plan: Plans, masking: Maskings) -> Config:
    """A decoder beside the backbone, all of whose blocks are then the encoder's."""
    model = replace(scale.mae.model, position="sincos", gelu="exact", final_norm=True)
    return replace(scale.mae, model=model, masking=masking, decoder=scale.decoder, plan=plan)


def _vjepa(scale: Scale, plan: JointEmbedding | Distill) -> Config:
    """What Table 9 has, in small: learned positions, colour jitter, rising weight decay; a third of the rate."""
    base = _beside(scale, plan, MultiBlockMasking(group=8))
    optim = replace(
        base.optim,
        lr=round(base.optim.lr / 3, 6),
        weight_decay=0.04,
        end_weight_decay=0.4,
        teacher_decay=scale.teacher_decay,
    )
    return replace(
        base, model=replace(base.model, position="learned"), clip=replace(base.clip, jitter=0.8), optim=optim
    )


def _blockwise(scale: Scale, plan: Blockwise) -> Config:
    return _beside(scale, plan, TubeMasking(keep=scale.keep))


def _sequential(scale: Scale) -> Config:
    """As many steps as the others have, shared out; each part with a warm-up and a cosine of its own."""
    base = _blockwise(scale, replace(scale.blockwise, regime="sequential"))
    cycles = len(scale.blockwise.boundaries(base.model.depth))
    return replace(base, optim=replace(base.optim, warmup=base.optim.warmup / cycles, mini_warmup=0.0, cycles=cycles))


def _all(scale: Scale) -> tuple[Recipe, ...]:
    """Every method at this size."""
    size, lock, cut = scale.mae.recipe, scale.lock, scale.blockwise
    sparse = replace(lock, masked=False, latent_fraction=scale.sparse)
    videomae = Progressive(masked=True, patches="normalized")
    made = {
        "mae": (_backbone(scale, scale.patches), "Video MAE, end to end"),
        "freeze": (_backbone(scale, scale.freezing), "Progressive freezing with pixel targets (LayerLock section 4.1)"),
        "layerlock": (_backbone(scale, lock), "LayerLock on all patches (section 3.3)"),
        "layerlock-sparse": (
            _backbone(scale, sparse),
            f"LayerLock, latent losses on a random {scale.sparse:.0%} of the patches (Table 2)",
        ),
        "layerlock-plateau": (
            _backbone(scale, scale.plateau),
            "LayerLock that switches when the loss of the stage no longer falls",
        ),
        "layerlock-auto": (
            _backbone(scale, scale.auto),
            "LayerLock that freezes blocks once their weight norms no longer grow (section 3.4), by no schedule",
        ),
        "layerlock-multi": (
            _backbone(scale, replace(lock, keep_targets=True, patch_weight=0.0)),
            "LayerLock that keeps all earlier targets, with one head for each (Table 5)",
        ),
        "videomae": (
            _beside(scale, videomae, TubeMasking(keep=scale.keep)),
            "VideoMAE: normalised pixels of masked tubes, separate decoder",
        ),
        "vjepa": (
            _vjepa(scale, JointEmbedding()),
            "V-JEPA: predicts features of masked blocks from a moving-average teacher",
        ),
        "vjepa-layerlock": (
            _vjepa(scale, scale.ladder),
            "LayerLock on V-JEPA: each switch freezes more blocks and predicts a deeper layer of the teacher",
        ),
        "vjepa-layerlock-own": (
            _vjepa(scale, replace(scale.ladder, teacher=False)),
            "LayerLock on V-JEPA without a teacher: targets are the model's own layers",
        ),
        "distill": (
            _beside(scale, Distill(network=scale.published, masked=True), TubeMasking(keep=scale.keep)),
            f"Distillation: the last features of {scale.published} at masked tubes; --plan.network names another",
        ),
        "static-teacher": (
            _vjepa(scale, Distill(network=f"runs/videomae-{size}", masked=True, error="absolute")),
            f"V-JEPA with a static teacher, the run folder --plan.network: first pretrain videomae-{size} (SALT)",
        ),
        "live-latents": (
            _backbone(scale, LiveLatents(layers=scale.live)),
            "MAE that also predicts its own layers, nothing frozen: collapses (Table 3)",
        ),
        "blockwise": (_blockwise(scale, cut), "Blockwise: parts with a loss each, no gradient between them"),
        "blockwise-sequential": (_sequential(scale), "Blockwise, one part after the other: those below are frozen"),
        "deep-supervision": (
            _blockwise(scale, replace(cut, regime="deep-supervision")),
            "The control of blockwise learning: the same losses, gradients through all blocks",
        ),
        "end-to-end": (
            _blockwise(scale, replace(cut, regime="end-to-end")),
            "The baseline of blockwise learning: the last loss alone",
        ),
    }
    return tuple(
        Recipe(config=replace(config, recipe=f"{name}-{size}"), about=about) for name, (config, about) in made.items()
    )


RECIPES = (*_all(NANO), *_all(TINY), *_all(SMALL))
