"""Settings of the LayerLock paper (arXiv 2509.10156), from its Tables 8 and 10."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Progressive
from layerlock.model.sizes import vit

STEPS_1B = 488_282
"""Updates of Table 8: 1 B clips in batches of 2048."""
STEPS_250M = 122_070
"""Updates of the ViT-G ablations of Table 10: 250 M clips in batches of 2048."""


def table_8(name: str, size: str, plan: Progressive) -> Config:
    """Table 8: 1 B clips of 16 x 224 x 224 at stride 2, 95 % masked, the last 4 blocks decode."""
    return Config(
        recipe=name,
        data="videos",
        steps=STEPS_1B,
        batch=2048,
        clip=ClipConfig(frames=16, stride=2, size=224, resize=1.15, flip=True),
        model=vit(size, patch=(2, 16, 16)),
        masking=RandomMasking(keep=0.05),
        decoder=BackboneDecoding(blocks=4),
        plan=plan,
        optim=OptimConfig(
            lr=3e-4, warmup=10_000 / STEPS_1B, mini_warmup=1_000 / STEPS_1B, weight_decay=0.05, betas=(0.90, 0.95)
        ),
        run=RunConfig(workers=16, log_every=50, checkpoint_every=1_000, keep=3),
    )


def climbing(start: int, last: int) -> Progressive:
    """One more block every 10k steps from step `start` on, predicting the last frozen one."""
    return Progressive(target="frozen", start=start / STEPS_1B, interval=10_000 / STEPS_1B, first=1, jump=1, last=last)


def four_ds_g() -> Config:
    """4DS-G, pixels alone (Table 1 row 1). To reach: SSv2 63.1, Kinetics-700 52.1, ScanNet AbsRel 0.102."""
    return table_8("4ds-g", "G", Progressive())


def four_ds_g_layerlock() -> Config:
    """4DS-G with LayerLock: freezing from step 160k, 32 of 44 encoder blocks at the end.

    To reach: 66.1, 56.3, 0.100.
    """
    return table_8("4ds-g-layerlock", "G", climbing(160_000, 32))


def four_ds_g_layerlock_sparse() -> Config:
    """As `4ds-g-layerlock`, latent losses on a random 5 % of the patches (Table 2).

    To reach: SSv2 64.9, ScanNet 0.112.
    """
    return table_8("4ds-g-layerlock-sparse", "G", replace(climbing(160_000, 32), latent_fraction=0.05))


def four_ds_e() -> Config:
    """4DS-e, pixels alone (Table 1 row 3). To reach: SSv2 64.6, Kinetics-700 54.4, ScanNet AbsRel 0.094."""
    return table_8("4ds-e", "e", Progressive())


def four_ds_e_layerlock() -> Config:
    """4DS-e with LayerLock: freezing from step 200k; at one block per 10k steps 29 of 52 are frozen at the end.

    To reach: 67.1, 57.9, 0.098.
    """
    return table_8("4ds-e-layerlock", "e", climbing(200_000, 39))


def table_10_g(name: str, plan: Progressive) -> Config:
    """Table 10, ViT-G on 250 M clips: learning rate 1e-4, no weight decay, 5,000 steps of warm-up."""
    base = table_8(name, "G", plan)
    optim = replace(base.optim, lr=1e-4, warmup=5_000 / STEPS_250M, mini_warmup=1_000 / STEPS_250M, weight_decay=0.0)
    return replace(base, steps=STEPS_250M, optim=optim)


def vit_g_250m() -> Config:
    """The pixel baseline of the ViT-G ablations, with RoPE (Table 4 row 2).

    To reach: SSv2 58.9, ScanNet AbsRel 0.13.
    """
    return table_10_g("vit-g-250m", Progressive())


def vit_g_250m_freeze() -> Config:
    """Freezing with pixel targets, 250 M clips (Figure 3). To reach: SSv2 56.1, ScanNet AbsRel 0.15.

    The table's layers count from zero: 5, 9, 13 and 17 blocks are frozen, from step 25k on, every 20k.
    """
    plan = Progressive(
        target="pixels", start=25_000 / STEPS_250M, interval=20_000 / STEPS_250M, first=5, jump=4, last=17
    )
    return table_10_g("vit-g-250m-freeze", plan)
