"""Settings for laptops, demonstrations and tests: the paper's methods at sizes that a CPU trains in minutes."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Progressive
from layerlock.model.sizes import vit

FREEZING = Progressive(target="pixels", start=0.6, interval=0.1, first=1, jump=1, last=4)
LOCKING = replace(FREEZING, target="frozen")
CENTRED = {"mean": (0.45, 0.45, 0.45), "std": (0.25, 0.25, 0.25)}
"""The papers feed pixels in [0, 1] as they are.

In runs this short the brightness that all patches share would then stay the largest part of every token for thousands
of steps; centred, the model begins with what tells patches apart.
"""


def _tiny(name: str, plan: Progressive) -> Config:
    return Config(
        recipe=name,
        steps=1_000,
        batch=32,
        clip=ClipConfig(frames=16, stride=1, size=48, resize=1.15, flip=True),
        model=vit("tiny", patch=(4, 8, 8), **CENTRED),
        masking=RandomMasking(keep=0.25),
        decoder=BackboneDecoding(blocks=2),
        plan=plan,
        optim=OptimConfig(lr=1.5e-3, warmup=0.03, mini_warmup=0.005, weight_decay=0.05),
        run=RunConfig(log_every=10, checkpoint_every=200),
    )


def mae_tiny() -> Config:
    """Video MAE: pixels, end to end."""
    return _tiny("mae-tiny", Progressive())


def freeze_tiny() -> Config:
    """Progressive freezing with pixel targets (LayerLock section 4.1)."""
    return _tiny("freeze-tiny", FREEZING)


def layerlock_tiny() -> Config:
    """LayerLock on all patches (section 3.3): four switches."""
    return _tiny("layerlock-tiny", LOCKING)


def layerlock_sparse_tiny() -> Config:
    """LayerLock with latent losses on a random quarter of the patches (Table 2 has 5 % of 1568)."""
    return _tiny("layerlock-sparse-tiny", replace(LOCKING, latent_fraction=0.25))


def layerlock_multi_tiny() -> Config:
    """LayerLock that keeps all targets so far, a head each (Table 5)."""
    return _tiny("layerlock-multi-tiny", replace(LOCKING, keep_targets=True))


def _small(name: str, plan: Progressive) -> Config:
    return Config(
        recipe=name,
        steps=50_000,
        batch=128,
        clip=ClipConfig(frames=16, stride=2, size=112, resize=1.15, flip=True),
        model=vit("small", patch=(2, 16, 16), **CENTRED),
        masking=RandomMasking(keep=0.10),
        decoder=BackboneDecoding(blocks=4),
        plan=plan,
        optim=OptimConfig(lr=6e-4, warmup=0.03, mini_warmup=0.004, weight_decay=0.05),
        run=RunConfig(workers=8, log_every=20, checkpoint_every=500),
    )


def mae_small() -> Config:
    """Video MAE for one GPU: 16 x 112 x 112, pixels, end to end."""
    return _small("mae-small", Progressive())


def freeze_small() -> Config:
    """Progressive freezing with pixel targets for one GPU."""
    return _small("freeze-small", replace(FREEZING, interval=0.05, last=7))


def layerlock_small() -> Config:
    """LayerLock for one GPU: own footage, 7 of 10 encoder blocks frozen at the end."""
    return _small("layerlock-small", replace(LOCKING, interval=0.05, last=7))
