"""Which tokens are context and which are predicted: pure functions of (seed, global sample index).

Five maskings of one shape, the protocol `Masking`. A learner draws part by part and runs one context pass a mask:

    for part in masking.parts(index_b):
        for masks in masking.draw(seed, index_b[part], grid):
            ...
"""

from layerlock.learn.masking.blocks import MultiBlockMasking, SeveralMaskings
from layerlock.learn.masking.masks import Counts, Masking, Masks, move, random_subset
from layerlock.learn.masking.scattered import FutureMasking, RandomMasking, TubeMasking

__all__ = [
    "Counts",
    "FutureMasking",
    "Masking",
    "Maskings",
    "Masks",
    "MultiBlockMasking",
    "RandomMasking",
    "SeveralMaskings",
    "TubeMasking",
    "move",
    "random_subset",
]

Maskings = RandomMasking | TubeMasking | FutureMasking | MultiBlockMasking | SeveralMaskings
"""the maskings that a config can name"""
