"""Which layers converge when: section A.1 and Figure 1 of the LayerLock paper (arXiv 2509.10156)."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config
from layerlock.learn.plans import Progressive
from layerlock.recipes.four_ds import COSINE, PIXELS, table_8
from layerlock.recipes.record import Recipe

STEPS = 14_000
LAYERS = (3, 6, 9, 12)
FROZEN_AT = (2_000, 4_000, 6_000, 8_000, 10_000, 12_000)
DECIDED = (
    COSINE,
    "The warm-up is 1,000 steps: the 10,000 of Table 8 would be most of the run.",
    "Freezing changes neither the target nor the learning rate, so no warm-up follows it.",
)


def _config(name: str, plan: Progressive = PIXELS) -> Config:
    base = table_8(name, "S16", plan)
    return replace(base, steps=STEPS, optim=replace(base.optim, lr=1e-4, warmup=1_000 / STEPS, mini_warmup=0.0))


def _frozen(layer: int, step: int) -> Recipe:
    """A point of Figure 1."""
    return Recipe(
        config=_config(
            f"convergence-s16-freeze-{layer}-at-{step // 1_000}k", Progressive(freezes=((step / STEPS, layer),))
        ),
        about=f"The same with {layer} blocks frozen at step {step:,}",
        source="LayerLock section A.1; Figure 1",
        reaches="the loss of convergence-s16 where these blocks have converged by then",
        decided=DECIDED,
    )


RECIPES = (
    Recipe(
        config=_config("convergence-s16"),
        about="ViT-S with 16 blocks, 14,000 steps, pixels alone: the baseline of Figure 1",
        source="LayerLock section A.1; Figure 1",
        reaches="the lowest loss, averaged over the last 1,000 steps",
        decided=DECIDED,
    ),
    *(_frozen(layer, step) for layer in LAYERS for step in FROZEN_AT),
)
