"""The plans of the papers, as settings of a config: `build` makes them for a number of steps and blocks."""

from layerlock.learn.plans.auto import Auto
from layerlock.learn.plans.blockwise import Blockwise
from layerlock.learn.plans.features import Distill, JointEmbedding, LiveLatents
from layerlock.learn.plans.freezing import Freezing
from layerlock.learn.plans.locking import Locking, Progressive
from layerlock.learn.plans.plateau import Plateau

__all__ = [
    "Auto",
    "Blockwise",
    "Distill",
    "Freezing",
    "JointEmbedding",
    "LiveLatents",
    "Locking",
    "Plans",
    "Plateau",
    "Progressive",
]

Plans = Progressive | Plateau | Auto | JointEmbedding | Distill | LiveLatents | Blockwise
"""the plans that a config can name"""
