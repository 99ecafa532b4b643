"""Depth of every pixel of every frame (LayerLock A.4.3): a query a patch, mean squared error, AbsRel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from layerlock.data import Batch
from layerlock.errors import LayerlockError
from layerlock.evaluation.solved import Maps
from layerlock.evaluation.tasks.task import (
    DEPTH,
    TRAINING,
    Augmentation,
    Metric,
    ReadoutTask,
    Scored,
    Shape,
    heads_of,
)
from layerlock.model.patches import patchify, token_grid, unpatchify

if TYPE_CHECKING:
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.splits.split import Splits

NEAR, FAR = 0.001, 10.0
"""metres between which a depth counts"""
EPS = 1e-6
"""added to the depth that AbsRel divides by"""
CLOSE = 1.25
"""a depth is close when the larger one of it and the truth is less than so many times the other"""


class DepthTask(ReadoutTask):
    """Depth in metres `[B, T, H, W]`; 0 where nothing counts."""

    name = "depth"
    target = DEPTH
    fields = (TRAINING | {"query_patch"}) - {"queries"}
    augmentation = Augmentation(flip=True)
    constant = "mean depth image"
    metrics = (
        Metric(name="AbsRel", higher_is_better=False),
        Metric(name="RMSE", higher_is_better=False),
        Metric(name="delta<1.25", higher_is_better=True, percent=True),
    )

    def __init__(self, config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> None:
        super().__init__(config, splits, encoder)
        self.patch = config.query_patch
        self.channels = config.channels or 1024
        self.heads = heads_of(config, self.channels)
        self.size = (encoder.clip.frames, encoder.clip.size, encoder.clip.size)
        try:
            self.grid = token_grid(*self.size, self.patch)
        except ValueError as error:
            raise LayerlockError(f"query_patch: {error}") from None

    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """A query for each of the patches; of a linear readout each token gives its own patch."""
        if kind == "attention":
            t, h, w = self.grid
            outputs = self.patch[0] * self.patch[1] * self.patch[2]
            return Shape(
                outputs=outputs,
                queries=t * h * w,
                channels=self.channels,
                heads=self.heads,
                grid=self.grid,
                patch=self.patch,
            )
        grid = encoder.grid
        patch = (self.size[0] // grid[0], self.size[1] // grid[1], self.size[2] // grid[2])
        return Shape(outputs=patch[0] * patch[1] * patch[2], pooled=False, grid=grid, patch=patch)

    def target_of(self, clips: Batch) -> Tensor:
        """Metres `[B, T, size, size]` of the crops, 0 where they are not between NEAR and FAR."""
        depth_bthw = super().target_of(clips)
        return depth_bthw.where((depth_bthw > NEAR) & (depth_bthw < FAR), 0.0)

    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """Metres `[B, T, H, W]`."""
        return unpatchify(output_bqo.float(), shape.grid, shape.patch)[:, :, 0]

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over all pixels that count."""
        valid = target > 0
        return ((prediction - target).square() * valid).sum() / valid.sum().clamp(min=1)

    def solver(self) -> Maps:
        """Ridge regression of each token's patch, in metres."""
        return Maps()

    def solver_target(self, shape: Shape, target: Tensor) -> Tensor:
        """Metres of each token's patch `[B, N, P]`."""
        return patchify(target[:, :, None], shape.patch)

    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """AbsRel, root of the mean squared error in metres, and the share of close pixels, of each clip."""
        truth_bp, guess_bp = target.flatten(1).double(), prediction.flatten(1).double()
        valid_bp = truth_bp > 0
        count_b = valid_bp.sum(1)
        error_bp = (guess_bp - truth_bp).abs()
        close_bp = (guess_bp < CLOSE * truth_bp) & (guess_bp * CLOSE > truth_bp)
        sums = (
            (error_bp / (truth_bp + EPS) * valid_bp).sum(1),
            (error_bp.square() * valid_bp).sum(1),
            (close_bp & valid_bp).sum(1),
        )
        abs_rel_b, square_b, close_b = (total_b / count_b for total_b in sums)  # 0 / 0 is not a number
        return Scored(score_vm=torch.stack([abs_rel_b, square_b.sqrt(), close_b.double()], 1))

    def first_output(self, summary: Tensor) -> float:
        """The mean depth: a readout that begins at zero metres spends its first thousand steps on coming there."""
        total, count = summary.flatten(1).sum(1)
        return float(total / count.clamp(min=1))

    def summary(self, target: Tensor) -> Tensor:
        """Sum and number of the depths of each pixel, `[2, T, H, W]`."""
        return torch.stack([target.double().sum(0), (target > 0).double().sum(0)])

    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """The mean depth of each pixel over the training clips; where none was measured the mean of all."""
        total, count = summary
        overall = total.sum() / count.sum().clamp(min=1)
        mean_thw = torch.where(count > 0, total / count.clamp(min=1), overall)
        return mean_thw.float().expand(clips, -1, -1, -1)
