"""What every task says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from layerlock.data import Batch
from layerlock.encoders import FrozenEncoder
from layerlock.errors import ConfigError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.splits.split import Split
from layerlock.model.patches import Grid


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of one test video; `percent`: shown times 100."""

    name: str
    higher_is_better: bool
    percent: bool = False


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a readout gives: `queries` vectors of `outputs` numbers; without queries one for each token, or for their
    mean where it is `pooled`. `grid` and `patch` say where in the clip dense outputs belong.
    """

    outputs: int
    queries: int = 1
    channels: int = 0
    heads: int = 0
    pooled: bool = True
    grid: Grid = (1, 1, 1)
    patch: Grid = (1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Figures of videos: `[B, M]`, a column for each metric; not a number where there is nothing to measure.

    `predicted_b` is the class that was predicted, -1 where there are no classes.
    """

    score_bm: Tensor
    predicted_b: Tensor


class Task(Protocol):
    """A target, the shape of a readout, a loss, metrics."""

    name: str
    metrics: tuple[Metric, ...]
    """the first one decides"""
    constant: str
    """what is predicted without looking at any clip, as a row of the results"""
    with_depth: bool
    views: int
    """clips of a test video"""

    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """The shape of an attention or a linear readout."""
        ...

    def target(self, batch: Batch) -> Tensor:
        """What is to be read from cropped and flipped clips `[B, ...]`."""
        ...

    def fingerprint(self, split: Split) -> str:
        """Another text where the targets of a split of the data differ."""
        ...

    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """A readout's output in the target's terms, float32 `[B, ...]`."""
        ...

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch; clips without a target do not count."""
        ...

    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """Figures of B / views videos; the clips of one are consecutive."""
        ...

    def first_output(self, summary: Tensor) -> float:
        """What every output of a readout is near before it has learned anything, after a `summary` of one batch."""
        ...

    def summary(self, target: Tensor) -> Tensor:
        """What a constant prediction is made of, float64, to be added up over training batches."""
        ...

    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """The constant prediction, in the target's terms, for so many clips."""
        ...


def heads_of(config: EvaluateConfig, channels: int) -> int:
    """Heads of an attention readout. ConfigError where they do not divide the channels."""
    heads = config.heads_of(channels)
    if channels % heads:
        raise ConfigError([f"heads: {heads} heads do not divide {channels} channels"])
    return heads
