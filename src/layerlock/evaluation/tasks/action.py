"""Classes of clips (LayerLock A.4.1, A.4.2): one query, cross-entropy, top-1 and, of more than five classes, top-5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.evaluation.solved import Classes
from layerlock.evaluation.tasks.task import (
    CLASS,
    TRAINING,
    Augmentation,
    Metric,
    ReadoutTask,
    Scored,
    Shape,
    heads_of,
    of_videos,
)

if TYPE_CHECKING:
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.splits.split import Splits

KINETICS_VIEWS = 7


class ActionTask(ReadoutTask):
    """The class of a video. Clips are not flipped: an action can have a left and a right."""

    name = "action"
    target = CLASS
    fields = TRAINING | {"appearance", "shots", "views", "column"}
    augmentation = Augmentation(jitter=0.8, grayscale=0.1)
    constant = "most frequent class"

    def __init__(self, config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> None:
        super().__init__(config, splits, encoder)
        self.tops = (1, 5) if len(self.classes) > 5 else (1,)
        self.views = config.views or (KINETICS_VIEWS if splits.layout == "Kinetics" else 1)
        self.channels = config.channels or (768 if splits.layout == "Something-Something v2" else 1024)
        self.heads = heads_of(config, self.channels)
        self.efficient = config.queries is not None
        self.appearance = config.appearance == "yes"
        self.metrics = tuple(Metric(name=f"top-{k}", higher_is_better=True, percent=True) for k in self.tops)

    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """One vector of logits."""
        return Shape(
            outputs=len(self.classes),
            channels=self.channels,
            heads=self.heads,
            efficient=self.efficient,
            appearance=self.appearance,
        )

    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """Logits `[B, C]`."""
        return output_bqo[:, 0].float()

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        loss_b = F.cross_entropy(prediction, target, ignore_index=-1, reduction="none")
        return loss_b.sum() / (target >= 0).sum().clamp(min=1)

    def solver(self) -> Classes:
        """Logistic regression."""
        return Classes(len(self.classes))

    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """Hits among the first and the first five of the mean softmax of a video's clips."""
        share_vc = prediction.softmax(-1).unflatten(0, (-1, self.views)).mean(1)
        label_v = of_videos(target, self.views)
        best_vk = share_vc.topk(max(self.tops), dim=-1).indices
        hit_vk = best_vk == label_v[:, None]
        score_vm = torch.stack([hit_vk[:, :k].any(1) for k in self.tops], 1).double()
        score_vm = score_vm.masked_fill(label_v[:, None] < 0, torch.nan)
        return Scored(score_vm=score_vm, truth_v=label_v, predicted_v=best_vk[:, 0])

    def summary(self, target: Tensor) -> Tensor:
        """How often each class was seen, `[C]`."""
        return torch.bincount(target[target >= 0], minlength=len(self.classes)).double()

    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """Frequencies in place of logits: their order is what counts."""
        return (summary / summary.sum().clamp(min=1)).float().expand(clips, -1)
