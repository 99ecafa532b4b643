"""Settings by name, and the one table of them: small ones first, then the papers'."""

from __future__ import annotations

from difflib import get_close_matches

from layerlock.config import Config
from layerlock.errors import LayerlockError
from layerlock.recipes import ablations, adapt, blockwise, convergence, four_ds, small, videomae, vjepa
from layerlock.recipes.record import Recipe

ROOMS = (small, adapt, four_ds, ablations, convergence, vjepa, videomae, blockwise)
RECIPES: dict[str, Recipe] = {made.name: made for room in ROOMS for made in room.RECIPES}


def recipe(name: str, init_from: str | None = None) -> Config:
    """The config of a recipe; one that adapts an encoder has the shape of `init_from`, where that is given.

    Raises LayerlockError for an unknown name and for an encoder that cannot be read or trained here.
    """
    if name not in RECIPES:
        similar = get_close_matches(name, RECIPES)
        close = f"; similar: {', '.join(similar)}" if similar else ""
        raise LayerlockError(f"there is no recipe {name!r}{close}; `layerlock recipes` lists all")
    made = RECIPES[name]
    return adapt.adapted(made.config, init_from) if made.adapts and init_from is not None else made.config
