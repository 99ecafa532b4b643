"""What is read from features: a task is a target, a readout's shape, a loss and its metrics."""

from __future__ import annotations

from layerlock.encoders import FrozenEncoder
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.splits.split import Splits
from layerlock.evaluation.tasks.action import ActionTask
from layerlock.evaluation.tasks.depth import DepthTask
from layerlock.evaluation.tasks.task import Metric, Scored, Shape, Task

__all__ = ["Metric", "Scored", "Shape", "Task", "build_task"]


def build_task(config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> Task:
    """The task that a config names, for these data. Raises LayerlockError where the encoder's clips do not suit it."""
    if config.task == "depth":
        return DepthTask(config, encoder.clip)
    return ActionTask(config, classes=len(splits.classes), layout=splits.layout)
