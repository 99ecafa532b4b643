"""A number of each video, from a column of a list: one output, mean squared error, R2 and MAE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.evaluation.solved import Numbers
from layerlock.evaluation.tasks.task import TRAINING, Metric, ReadoutTask, Scored, Shape, Target, heads_of, of_videos

if TYPE_CHECKING:
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.splits.split import Splits


class RegressionTask(ReadoutTask):
    """Readouts give deviations from the mean of the training split, in its standard deviations, so that learning rates
    do not depend on the unit; losses too are in these, metrics in the unit of the column. Nothing is augmented but the
    crop: a number can depend on colour and on left and right.
    """

    name = "regression"
    target = Target(name="label", kind="float")
    fields = TRAINING | {"appearance", "shots", "views", "column"}
    constant = "mean of the training split"
    metrics = (
        Metric(name="MSE", higher_is_better=False),
        Metric(name="R2", higher_is_better=True, of_variance=True),
        Metric(name="MAE", higher_is_better=False),
    )

    def __init__(self, config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> None:
        super().__init__(config, splits, encoder)
        value_v = torch.tensor(splits.train.values(self.target), dtype=torch.float64)
        self.mean, self.deviation = float(value_v.mean()), float(value_v.std(correction=0))
        if self.deviation == 0:
            root, name = splits.train.index.root, self.target.name
            raise LayerlockError(f"{root}: {name} is {self.mean:g} for every video of the training split")
        self.views = config.views or 1
        self.channels = config.channels or 1024
        self.heads = heads_of(config, self.channels)
        self.efficient = config.queries is not None
        self.appearance = config.appearance == "yes"

    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """One number."""
        return Shape(
            outputs=1,
            channels=self.channels,
            heads=self.heads,
            efficient=self.efficient,
            appearance=self.appearance,
        )

    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """Values in the unit of the column `[B, 1]`."""
        return output_bqo[:, 0].float() * self.deviation + self.mean

    def solver(self) -> Numbers:
        """Ridge regression of deviations from the mean."""
        return Numbers(self.mean, self.deviation)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, in squared deviations."""
        known_b = self.target.known(target)
        error_b = ((prediction[:, 0] - target) / self.deviation).where(known_b, 0.0)
        return error_b.square().sum() / known_b.sum().clamp(min=1)

    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """Squared and absolute error of the mean over a video's clips; the squared one is what R2 is made of."""
        guess_v = prediction[:, 0].double().unflatten(0, (-1, self.views)).mean(1)
        truth_v = of_videos(target.double(), self.views)
        error_v = guess_v - truth_v
        score_vm = torch.stack([error_v.square(), error_v.square(), error_v.abs()], 1)
        return Scored(score_vm=score_vm, truth_v=truth_v, predicted_v=guess_v)

    def summary(self, target: Tensor) -> Tensor:
        """Sum and number of the values."""
        known_b = self.target.known(target)
        return torch.stack([target.double()[known_b].sum(), known_b.double().sum()])

    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """Their mean."""
        return (summary[0] / summary[1].clamp(min=1)).float().expand(clips, 1)

    def told(self, value: float) -> str:
        """Four digits."""
        return f"{value:.4g}"
