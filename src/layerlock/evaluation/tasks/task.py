"""What every task says of itself, and what it does with features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from layerlock.data import Batch, crop_and_flip_target
from layerlock.data.targets import LABEL, Kind, unknown
from layerlock.errors import ConfigError
from layerlock.model.patches import Grid

if TYPE_CHECKING:
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.solved import Solver
    from layerlock.evaluation.splits.split import Splits

ATTENTION = frozenset({"channels", "heads", "queries", "dropout"})
"""fields of the config that attention readouts have"""
CACHE = frozenset({"cache", "cache_gb"})
"""fields of the config that say whether features are kept"""
TRAINING = (
    ATTENTION
    | CACHE
    | {
        *("lrs", "examples", "warmup", "end_lr", "weight_decay", "readout_seeds", "checkpoint_every"),
        *("augment", "flip", "jitter", "grayscale"),
    }
)
"""fields of the config that say how readouts are trained"""
TRAINED, SOLVED = ("attention", "linear"), ("solved",)
"""kinds of readout that are trained step by step, and those that are computed at once"""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of one test video; `percent`: shown times 100."""

    name: str
    higher_is_better: bool
    percent: bool = False
    of_variance: bool = False
    """its column holds squared errors; the figure is the share of the variance of the targets that they leave out, in
    all: 1 - sum of errors / sum of squared deviations from the mean"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is read, by its name in samples: a class or a number of each video, or a map, a number for each pixel of
    each frame, which is cropped and flipped with its clip.
    """

    name: str
    kind: Kind
    unit: str = ""

    @property
    def missing(self) -> float:
        """The value where nothing is known, which counts in no loss and no metric."""
        return float(unknown(self.kind, frames=1, side=1))

    def known(self, x: Tensor) -> Tensor:
        """Where values are known, bool."""
        return ~x.isnan() if math.isnan(self.missing) else x != self.missing

    def of(self, clips: Batch) -> Tensor:
        """The target of cropped and flipped clips: `[B]`, of a map `[B, T, size, size]`."""
        return crop_and_flip_target(clips, self.name)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is drawn at random for training clips beside their crop, where the config does not say."""

    flip: bool = False
    jitter: float = 0.0
    """probability of random colours"""
    grayscale: float = 0.0
    """probability of a grayscale clip"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a readout gives: `queries` vectors of `outputs` numbers; without queries one for each token, or for their
    mean where it is `pooled`, solved ones without what does not change over time unless `appearance`. An attention
    readout is that of LayerLock, or `efficient` probing with a query for each head. `grid` and `patch` say where in the
    clip dense outputs belong.
    """

    outputs: int
    queries: int = 1
    channels: int = 0
    heads: int = 0
    efficient: bool = False
    pooled: bool = True
    appearance: bool = True
    grid: Grid = (1, 1, 1)
    patch: Grid = (1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Figures of videos, `[V, M]`, a column for each metric; not a number where there is nothing to measure.

    Where a target is one of each video, `truth_v` and `predicted_v` are the class numbers or values.
    """

    score_vm: Tensor
    truth_v: Tensor | None = None
    predicted_v: Tensor | None = None


class Task(ABC):
    """A row of the table of tasks. An instance is one for a config, its data and its encoder.

    The constructor raises ConfigError and LayerlockError where they do not suit it.
    """

    name: ClassVar[str]
    target: Target
    """of an instance with the column of its config"""
    readouts: ClassVar[tuple[str, ...]]
    """kinds of readout that there are"""
    fields: ClassVar[frozenset[str]] = frozenset()
    """fields of the config that apply to this task and not to every one"""
    augmentation: ClassVar[Augmentation] = Augmentation()
    chosen_on: ClassVar[tuple[str, ...]] = ("validation",)
    """splits that the block, and the learning rate where there is one, are chosen on"""
    constant: ClassVar[str | None] = None
    """what is predicted without any clip, as a row of the results"""

    metrics: tuple[Metric, ...]
    """the first one decides"""
    views: int = 1
    """clips of a test video"""

    def __init__(self, config: EvaluateConfig, splits: Splits, encoder: FrozenEncoder) -> None:
        self.target = self.target_for(config)
        self.classes = splits.classes

    @classmethod
    def target_for(cls, config: EvaluateConfig) -> Target:
        """The target of a config, which can name another column."""
        return replace(cls.target, name=config.column) if "column" in cls.fields else cls.target

    def told(self, value: float) -> str:
        """A target or a prediction of one video, in words."""
        return self.classes[int(value)]

    def target_of(self, clips: Batch) -> Tensor:
        """The target of cropped and flipped clips `[B, ...]`."""
        return self.target.of(clips)


class ReadoutTask(Task):
    """A task of readouts that predict the target of one clip after the other."""

    readouts: ClassVar[tuple[str, ...]] = (*TRAINED, *SOLVED)
    fields = TRAINING

    @abstractmethod
    def shape(self, kind: str, encoder: FrozenEncoder) -> Shape:
        """The shape of a readout of one kind."""

    @abstractmethod
    def predict(self, shape: Shape, output_bqo: Tensor) -> Tensor:
        """A readout's output in the target's terms, float32 `[B, ...]`."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch; clips without a target do not count."""

    @abstractmethod
    def score(self, prediction: Tensor, target: Tensor) -> Scored:
        """Figures of B / views videos; the clips of one are consecutive."""

    @abstractmethod
    def summary(self, target: Tensor) -> Tensor:
        """What a constant prediction is made of, float64, to be added up over training batches."""

    @abstractmethod
    def constant_prediction(self, summary: Tensor, clips: int) -> Tensor:
        """The constant prediction, in the target's terms, for so many clips."""

    @abstractmethod
    def solver(self) -> Solver:
        """A new one of the readout that is solved."""

    def solver_target(self, shape: Shape, target: Tensor) -> Tensor:
        """The targets of a batch as that solver takes them."""
        return target

    def first_output(self, summary: Tensor) -> float:
        """What every output of a readout is near before it has learned anything, after a `summary` of one batch."""
        return 0.0


class FeatureTask(Task):
    """A task that trains nothing: mean-pooled features of a whole split are scored as they are."""

    left_out: ClassVar[str]
    """what is said of a video that has features and no figure"""

    @abstractmethod
    def score_features(self, kind: str, features_vd: Tensor, truth_v: Tensor, group_v: Tensor) -> tuple[Tensor, Scored]:
        """Rows of the videos that have a figure, `[Q]`, and their figures, one of the `readouts` being the `kind`;
        ValueError where no video has one.

        Which videos have one depends on their targets and groups alone.
        """


def heads_of(config: EvaluateConfig, channels: int) -> int:
    """Heads of an attention readout, or its queries. ConfigError where they do not divide the channels."""
    heads = config.heads_of(channels)
    if channels % heads:
        name = "heads" if config.queries is None else "queries"
        raise ConfigError([f"{name}: {heads} {name} do not divide {channels} channels"])
    return heads


def of_videos(x_b: Tensor, views: int) -> Tensor:
    """Of the clips of each video, which have one value, that value: the least where one of them has none."""
    return x_b.unflatten(0, (-1, views)).amin(1)


CLASS = Target(name=LABEL, kind="class")
DEPTH = Target(name="depth", kind="map", unit="m")
