"""Videos of the same class ranked by the cosine of mean-pooled features, as they are and whitened; nothing is trained.

Training and validation split together are what the block is chosen on. In each split every video queries those of its
class among all others of the split that are not of its group.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.evaluation.tasks.task import CLASS, FeatureTask, Metric, Scored
from layerlock.features.neighbours import leave_one_out
from layerlock.features.whitening import whitening

if TYPE_CHECKING:
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.splits.split import Splits


COSINE, WHITENED = "cosine", "whitened"
"""of features as they are; of features that are centred and whitened, as the videos of the split say"""


class RetrievalTask(FeatureTask):
    """Leave-one-out retrieval of the class of a video."""

    name = "retrieval"
    target = CLASS
    readouts = (COSINE, WHITENED)
    fields = frozenset({"column"})
    chosen_on = ("train", "validation")
    left_out = "no other video of its class outside its group"
    metrics = (
        Metric(name="mAP", higher_is_better=True, percent=True),
        Metric(name="top-1", higher_is_better=True, percent=True),
        Metric(name="top-5", higher_is_better=True, percent=True),
    )

    def __init__(self, config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> None:
        super().__init__(config, splits, encoder)
        for split in (splits.together(self.chosen_on), splits.test):
            groups = Counter(label for label, _ in set(zip(split.values(self.target), split.groups, strict=True)))
            if max(groups.values()) < 2:
                role = "test" if split is splits.test else " and ".join(self.chosen_on)
                raise LayerlockError(
                    f"{split.index.root}: nothing to retrieve among {len(split)} videos of the {role} split: no two "
                    "are of one class and of different groups (--test-share says how many are tested on)"
                )

    def score_features(self, kind: str, features_vd: Tensor, truth_v: Tensor, group_v: Tensor) -> tuple[Tensor, Scored]:
        """Average precision, and whether one of the first and of the first five neighbours is of the class."""
        if kind == WHITENED:
            with suppress(ValueError):  # nothing varies: nothing to whiten
                features_vd = whitening(features_vd).apply(features_vd)
        ranked = leave_one_out(features_vd, truth_v, group_v)
        hits = ((ranked.first_q < k).double() for k in (1, 5))
        return ranked.query_q, Scored(
            score_vm=torch.stack([ranked.average_precision_q, *hits], 1),
            truth_v=truth_v[ranked.query_q],
            predicted_v=truth_v[ranked.nearest_q],
        )
