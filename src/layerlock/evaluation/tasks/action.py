"""Classes of clips (LayerLock A.4.1, A.4.2): one query, cross-entropy, top-1 and top-5."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock.data import Batch
from layerlock.encoders import FrozenEncoder
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.splits.split import Split
from layerlock.evaluation.tasks.task import Metric, Scored, Shape, heads_of

KINETICS_VIEWS = 7


class ActionTask:
    """The class of a video. Labels are -1 where a clip has none; those clips do not count."""

    name = "action"
    constant = "most frequent class"
    with_depth = False

    def __init__(self, config: EvaluateConfig, *, classes: int, layout: str) -> None:
        self.classes = classes
        self.top = min(5, self.classes)
        self.views = config.views or (KINETICS_VIEWS if layout == "Kinetics" else 1)
        self.channels = config.channels or (768 if layout == "Something-Something v2" else 1024)
        self.heads = heads_of(config, self.channels)
        self.metrics: tuple[Metric, ...] = (
            Metric(name="top-1", higher_is_better=True, percent=True),
            Metric(name=f"top-{self.top}", higher_is_better=True, percent=True),
        )

    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """One vector of logits."""
        return Shape(outputs=self.classes, channels=self.channels, heads=self.heads)

    def target(self, batch: Batch) -> Tensor:
        """Labels `[B]`."""
        return batch.label_b

    def fingerprint(self, split: Split) -> str:
        """The labels, and the classes that they are."""
        return repr((split.index.labels, split.index.classes))

    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """Logits `[B, C]`."""
        return output_bqo[:, 0].float()

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        loss_b = F.cross_entropy(prediction, target, ignore_index=-1, reduction="none")
        return loss_b.sum() / (target >= 0).sum().clamp(min=1)

    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """Hits among the first and the first five of the mean softmax of a video's clips."""
        share_bc = prediction.softmax(-1).unflatten(0, (-1, self.views)).mean(1)
        label_b = target.unflatten(0, (-1, self.views)).amin(1)
        best_bk = share_bc.topk(self.top, dim=-1).indices
        hit_bk = best_bk == label_b[:, None]
        score_bm = torch.stack([hit_bk[:, 0], hit_bk.any(1)], 1).double()
        return Scored(score_bm=score_bm.masked_fill(label_b[:, None] < 0, torch.nan), predicted_b=best_bk[:, 0])

    def first_output(self, summary: Tensor) -> float:
        """Nothing: all classes are alike."""
        return 0.0

    def summary(self, target: Tensor) -> Tensor:
        """How often each class was seen, `[C]`."""
        return torch.bincount(target[target >= 0], minlength=self.classes).double()

    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """Frequencies in place of logits: their order is what counts."""
        return (summary / summary.sum().clamp(min=1)).float().expand(clips, -1)
