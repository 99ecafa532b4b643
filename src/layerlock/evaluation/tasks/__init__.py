"""The tasks, one row each: what is read, by which readouts, and how that is measured."""

from __future__ import annotations

from layerlock.evaluation.tasks.action import ActionTask
from layerlock.evaluation.tasks.depth import DepthTask
from layerlock.evaluation.tasks.regression import RegressionTask
from layerlock.evaluation.tasks.retrieval import RetrievalTask
from layerlock.evaluation.tasks.task import FeatureTask, Metric, ReadoutTask, Scored, Shape, Target, Task

__all__ = ["TASKS", "FeatureTask", "Metric", "ReadoutTask", "Scored", "Shape", "Target", "Task"]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        ActionTask,
        DepthTask,
        RegressionTask,
        RetrievalTask,
    )
}
"""by name"""
