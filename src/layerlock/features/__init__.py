"""From clips to the features of frozen encoders: one generator for training, scoring, retrieval, embedding and the
report, and a cache of what it gave.
"""

from layerlock.features.read import (
    FeatureBatch,
    Place,
    Reader,
    Readings,
    finite_clips,
    mean_pooled,
    not_finite,
    pooled_features,
    read_features,
)

__all__ = [
    "FeatureBatch",
    "Place",
    "Reader",
    "Readings",
    "finite_clips",
    "mean_pooled",
    "not_finite",
    "pooled_features",
    "read_features",
]
