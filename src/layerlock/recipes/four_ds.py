"""4DS with and without LayerLock: Table 8 of the LayerLock paper (arXiv 2509.10156), results in its Tables 1 and 2."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Progressive
from layerlock.model.sizes import vit
from layerlock.recipes.record import Recipe, freezing

STEPS = 488_282
"""1 B clips in batches of 2048"""
MINI_WARMUP = 1_000
"""steps of warm-up after a switch: the best of Table 6"""


def table_8(name: str, size: str, plan: Progressive) -> Config:
    """16 x 224 x 224 at stride 2, 95 % masked, the last 4 blocks decode."""
    return Config(
        recipe=name,
        data="videos",
        steps=STEPS,
        batch=2048,
        clip=ClipConfig(frames=16, stride=2, size=224, resize=1.15, flip=True),
        model=vit(size, patch=(2, 16, 16)),
        masking=RandomMasking(keep=0.05),
        decoder=BackboneDecoding(blocks=4),
        plan=plan,
        optim=OptimConfig(
            lr=3e-4, warmup=10_000 / STEPS, mini_warmup=MINI_WARMUP / STEPS, weight_decay=0.05, betas=(0.90, 0.95)
        ),
        run=RunConfig(workers=16, log_every=50, checkpoint_every=1_000, keep=3),
    )


PIXELS = Progressive()
LOCK_G = Progressive(target="frozen", **freezing(STEPS, start=160_000, interval=10_000, last=32))
LOCK_E = Progressive(target="frozen", **freezing(STEPS, start=200_000, interval=10_000, last=39))
COSINE = "The learning rate decays to 0: the paper gives no final value."
SWITCH = "Each switch adds a new head and 1,000 steps of warm-up, the best setting of Table 6."
SUBSET = "Targets are computed from the random subset of patches alone, as in the paper."
STOP_E = (
    "Targets 1 to 32 in Table 8 apply to 4DS-G. 4DS-e freezes one block per 10k steps from step 200k on: 29 of 52 by"
    " the end."
)

SAVES = (
    "freezing with pixels saves 9 % of a ViT-G's FLOPs and 16 % of its peak memory on 250 M clips, 19 % of FLOPs on 1 B"
)

RECIPES = (
    Recipe(
        config=table_8("4ds-g", "G", PIXELS),
        about="4DS-G, pixels alone",
        source="LayerLock Table 8; Table 1 row 1",
        reaches="SSv2 63.1, Kinetics-700 52.1, ScanNet 0.102",
        decided=(COSINE,),
    ),
    Recipe(
        config=table_8("4ds-g-layerlock", "G", LOCK_G),
        about="4DS-G with LayerLock: from step 160k on, 32 of 44 encoder blocks frozen at the end",
        source="LayerLock Table 8; Table 1 row 2",
        reaches="SSv2 66.1, Kinetics-700 56.3, ScanNet 0.100",
        saves=SAVES,
        decided=(COSINE, SWITCH),
    ),
    Recipe(
        config=table_8("4ds-g-layerlock-sparse", "G", replace(LOCK_G, latent_fraction=0.05)),
        about="4DS-G with LayerLock, latent losses on a random 5 % of the patches",
        source="LayerLock Table 8; Table 2 row 2",
        reaches="SSv2 64.9, ScanNet 0.112",
        decided=(COSINE, SWITCH, SUBSET),
    ),
    Recipe(
        config=table_8("4ds-e", "e", PIXELS),
        about="4DS-e, pixels alone",
        source="LayerLock Table 8; Table 1 row 3",
        reaches="SSv2 64.6, Kinetics-700 54.4, ScanNet 0.094",
        decided=(COSINE,),
    ),
    Recipe(
        config=table_8("4ds-e-layerlock", "e", LOCK_E),
        about="4DS-e with LayerLock: from step 200k on, 29 of 52 encoder blocks frozen at the end",
        source="LayerLock Table 8; Table 1 row 4",
        reaches="SSv2 67.1, Kinetics-700 57.9, ScanNet 0.098",
        decided=(COSINE, SWITCH, STOP_E),
    ),
)
