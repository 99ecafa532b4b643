"""Settings by name: functions that return a Config, and the one table of them."""

from __future__ import annotations

from collections.abc import Callable

from layerlock.config import Config
from layerlock.errors import LayerlockError
from layerlock.recipes import methods, papers, small

Recipe = Callable[[], Config]

RECIPES: dict[str, Recipe] = {
    "mae-tiny": small.mae_tiny,
    "freeze-tiny": small.freeze_tiny,
    "layerlock-tiny": small.layerlock_tiny,
    "layerlock-sparse-tiny": small.layerlock_sparse_tiny,
    "layerlock-multi-tiny": small.layerlock_multi_tiny,
    "videomae-tiny": methods.videomae_tiny,
    "vjepa-tiny": methods.vjepa_tiny,
    "vjepa-layerlock-tiny": methods.vjepa_layerlock_tiny,
    "vjepa-layerlock-own-tiny": methods.vjepa_layerlock_own_tiny,
    "live-latents-tiny": methods.live_latents_tiny,
    "blockwise-tiny": methods.blockwise_tiny,
    "blockwise-sequential-tiny": methods.blockwise_sequential_tiny,
    "deep-supervision-tiny": methods.deep_supervision_tiny,
    "mae-small": small.mae_small,
    "freeze-small": small.freeze_small,
    "layerlock-small": small.layerlock_small,
    "4ds-g": papers.four_ds_g,
    "4ds-g-layerlock": papers.four_ds_g_layerlock,
    "4ds-g-layerlock-sparse": papers.four_ds_g_layerlock_sparse,
    "4ds-e": papers.four_ds_e,
    "4ds-e-layerlock": papers.four_ds_e_layerlock,
    "vit-g-250m": papers.vit_g_250m,
    "vit-g-250m-freeze": papers.vit_g_250m_freeze,
}


def recipe(name: str) -> Config:
    """The config of a recipe. Raises LayerlockError naming the ones there are."""
    if name not in RECIPES:
        raise LayerlockError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]()
