"""Settings by name, and the one table of them: small ones first, then the papers'."""

from __future__ import annotations

from layerlock.config import Config
from layerlock.errors import LayerlockError
from layerlock.recipes import ablations, blockwise, convergence, four_ds, small, videomae, vjepa
from layerlock.recipes.record import Recipe

ROOMS = (small, four_ds, ablations, convergence, vjepa, videomae, blockwise)
RECIPES: dict[str, Recipe] = {made.name: made for room in ROOMS for made in room.RECIPES}


def recipe(name: str) -> Config:
    """The config of a recipe. Raises LayerlockError naming the ones there are."""
    if name not in RECIPES:
        raise LayerlockError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name].config
