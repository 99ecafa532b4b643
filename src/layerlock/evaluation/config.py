"""The whole of an evaluation as data: one frozen dataclass behind the function, the command and `config.json`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Literal

from layerlock.config import OptimConfig, RunConfig
from layerlock.data import ClipConfig
from layerlock.data.targets import LABEL
from layerlock.errors import ConfigError
from layerlock.evaluation.tasks import TASKS, Task
from layerlock.evaluation.tasks.task import ATTENTION, CACHE, TRAINED, TRAINING
from layerlock.features.clips import RESIZE, plain_clip
from layerlock.model.encoder import ClipShape
from layerlock.settings import type_problems

YesNo = Literal["yes", "no"]
UNCACHED = "cache: needs --augment no, since augmented clips differ each time"
FEW_VIDEOS = 5_000
"""Below so many labelled videos trained readouts are starved (docs/evaluation.md)."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A frozen evaluation (LayerLock A.4). Defaults are the paper's; None means that the task or the data decide."""

    encoder: str = ""
    """run folder, encoder folder, or the name of another encoder (docs/encoders.md)"""
    task: str = "action"
    """what readouts predict from the features; `layerlock evaluate` lists the tasks"""
    data: str = ""
    """folder or list of videos, with labels or depth (docs/evaluation.md)"""
    test_data: str | None = None
    """videos to test on; None: the data's own test split, else a share of the data"""
    column: str = LABEL
    """column of the list with the target: a class or, for regression, a number of each video"""
    data_root: str | None = None
    """folder that paths of lists are relative to; None: the folder of each list"""
    out: str = "evaluation"
    """folder to write"""
    seed: int = 0
    """seed of initial weights, clips and splits"""
    readout_seeds: int = 1
    """readouts of each candidate, with different initial weights; results are their mean, and intervals include their
    spread"""

    depths: tuple[float, ...] = (0.25, 0.5, 0.75, 0.85, 0.95, 1.0)
    """blocks whose features are read, as fractions of the L blocks: block floor(fraction x L)"""
    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """learning rates of the sweep"""
    readout: str | None = None
    """kind of readout: attention, linear, solved (logistic or ridge regression); all: each kind, selected and reported
    separately; None: solved for a class or a number of fewer than 5,000 training videos, unless a setting of trained
    readouts is given, else all"""
    channels: int | None = None
    """width of an attention readout; None: 768 for Something-Something v2, else 1024"""
    heads: int | None = None
    """heads of an attention readout; None: one for each 64 channels"""
    queries: int | None = None
    """an attention readout is efficient probing with so many queries (arXiv 2506.10178); None: LayerLock's readout with
    one"""
    dropout: float = 0.0
    """share of the channels before the last layer of an attention readout that are zero in training"""
    appearance: YesNo = "yes"
    """solved readouts of a class or a number see all of a clip; no: changes over time alone, so that they cannot go by
    what things look like, which may differ elsewhere"""
    shots: tuple[int | Literal["all"], ...] = ()
    """solve readouts also for so many training videos of each class (regression: in all), and report the metrics by
    their number; all: the whole training split, which is always the last point"""
    query_patch: tuple[int, int, int] = (2, 8, 8)
    """frames, rows and columns of depth that one query of an attention readout predicts"""

    examples: int = 1_280_000
    """clips that each readout is trained on"""
    batch: int = 32
    """clips per step"""
    warmup: float = 0.025
    """linear warm-up, as a fraction of the training: 1,000 of the paper's 40,000 steps"""
    end_lr: float = 1e-7
    """learning rate at the end of the cosine"""
    weight_decay: float = 1e-4
    """weight decay of matrices; the paper gives no value"""

    stride: int | None = None
    """source frames from one frame of a clip to the next; None: as in the encoder's training"""
    augment: YesNo = "yes"
    """train on random clips, crops, flips and colours; no: on the middle clip of each video without augmentation"""
    resize: float = RESIZE
    """short side before the crop, as a multiple of the clip's size"""
    flip: YesNo | None = None
    """flip half of the training clips left to right; None: only for depth; actions can depend on left and right"""
    jitter: float | None = None
    """probability of random colours in training (Table 12); None: 0.8 for actions, 0 for depth"""
    grayscale: float | None = None
    """probability of a grayscale clip in training; None: 0.1 for actions, 0 for depth"""
    views: int | None = None
    """equally spaced clips of a test video whose predictions are averaged; None: 7 for Kinetics, else 1"""
    split_by: Literal["auto", "video", "time"] = "auto"
    """how data without splits are divided; auto: by video, or by time for depth with fewer than 3 groups"""
    group: str | None = None
    """regular expression that is searched for in the path of a video below its data: its first group, or all that
    matches, names the videos (of one recording, room, subject) that stay in one split and count as one in intervals;
    None: the column `group` of the list, else file names in the style of known data sets"""
    shared_groups: Literal["refuse", "allow"] = "refuse"
    """whether a group may be in two of the data's own splits"""
    validation_share: float = 0.1
    """share of the data that the depth and the learning rate are chosen on, where the data have no such split"""
    test_share: float = 0.2
    """share of the data that is tested on, where the data have no such split"""
    baselines: YesNo = "yes"
    """also evaluate random weights, raw pixels, frame differences and, by solved readouts, motion statistics"""
    cache: bool = False
    """keep features on the disk; trained readouts need --augment no"""
    cache_gb: float = 200.0
    """limit in gigabytes of the features of all evaluations on the disk; the least recently used are removed first"""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the encoder and of large matrix products in readouts; auto: bf16 if the hardware supports it, else fp32"""
    workers: int = 2
    """processes that decode"""
    threads: int | None = None
    """CPU threads; None: on a CPU OMP_NUM_THREADS, without it one for each processor"""
    checkpoint_every: int = 500
    """steps from one checkpoint to the next"""

    @property
    def steps(self) -> int:
        """Updates of each readout."""
        return self.examples // max(self.batch, 1)

    @property
    def row(self) -> type[Task]:
        """The row of the table of tasks."""
        return TASKS[self.task]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of readout."""
        return self.row.readouts if self.readout in (None, "all") else (self.readout,)

    def fitting(self, videos: int) -> EvaluateConfig:
        """The same with a kind of readout for so many training videos, where none is asked for.

        Raises ConfigError where that kind is trained on clips that cannot be cached.
        """
        if self.readout is not None:
            return self
        few = videos < FEW_VIDEOS and "solved" in self.row.readouts and self.row.target.kind != "map"
        if few and not self.trains:
            return replace(self, readout="solved")
        if self.cache and self.augmented:
            raise ConfigError([UNCACHED])
        return replace(self, readout="all")

    @property
    def trains(self) -> bool:
        """Whether a setting of training by steps is given."""
        return any(getattr(self, name) != _DEFAULTS[name] for name in TRAINING - CACHE)

    @property
    def few(self) -> tuple[int, ...]:
        """The numbers of training videos of each class that solved readouts are fitted to, before all of them."""
        return tuple(sorted({shots for shots in self.shots if shots != "all"}))

    def still_clip(self, shape: ClipShape) -> ClipConfig:
        """Clips of an encoder's shape without anything random, cut in the centre."""
        return plain_clip(shape, stride=self.stride, resize=self.resize)

    def training_clip(self, shape: ClipShape) -> ClipConfig:
        """The same with random crops, flips and colours."""
        usual = self.row.augmentation
        return replace(
            self.still_clip(shape),
            flip=usual.flip if self.flip is None else self.flip == "yes",
            jitter=usual.jitter if self.jitter is None else self.jitter,
            grayscale=usual.grayscale if self.grayscale is None else self.grayscale,
        )

    def heads_of(self, channels: int) -> int:
        """Heads of an attention readout of so many channels; each query of efficient probing is one."""
        return self.queries or self.heads or max(1, channels // 64)

    @property
    def augmented(self) -> bool:
        """Whether readouts are trained on random clips."""
        return self.augment == "yes"

    def optim(self, lr: float) -> OptimConfig:
        """How readouts of one learning rate are trained."""
        return OptimConfig(
            lr=lr, end_lr=min(self.end_lr, lr), warmup=self.warmup, weight_decay=self.weight_decay, betas=(0.9, 0.999)
        )

    def run(self) -> RunConfig:
        """What the machine is to do."""
        return RunConfig(device=self.device, precision=self.precision, workers=self.workers, threads=self.threads)

    def check(self) -> None:
        """Raises ConfigError with every problem there is."""
        problems = type_problems(self) or self._names()
        if not problems:
            problems = [*self._texts(), *self._numbers(), *self._shares(), *self._training(), *self._unused()]
        if problems:
            raise ConfigError(problems)

    def _names(self) -> list[str]:
        """Words that are none of those there are."""
        if self.task not in TASKS:
            return [f"task: {self.task!r} is not one of {', '.join(TASKS)}"]
        kinds = (*self.row.readouts, "all")
        return [] if self.readout in (None, *kinds) else [f"readout: {self.readout!r} is not one of {', '.join(kinds)}"]

    def _texts(self) -> list[str]:
        problems = [f"{name}: empty" for name in ("encoder", "data", "out") if not getattr(self, name)]
        try:
            re.compile(self.group or "")
        except re.error as error:
            problems.append(f"group: {self.group!r} is not a valid regular expression ({error})")
        return problems

    def _numbers(self) -> list[str]:
        problems = [
            f"{name}: {value} is not positive"
            for name in (
                "batch",
                "channels",
                "heads",
                "queries",
                "stride",
                "views",
                "threads",
                "checkpoint_every",
                "readout_seeds",
            )
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if min(self.query_patch) < 1:
            problems.append(f"query_patch: {self.query_patch} are not all positive")
        least = 1 if self.row.target.kind == "class" else 2
        problems += [f"shots: {shots} is less than {least}" for shots in self.few if shots < least]
        problems += ["shots: all alone is no curve; name a number too"] if self.shots and not self.few else []
        if self.workers < 0:
            problems.append(f"workers: {self.workers} is negative")
        channels, heads = self.channels or 0, self.heads_of(self.channels or 0)
        if channels > 0 and heads > 0 and channels % heads:
            name = "heads" if self.queries is None else "queries"
            problems.append(f"{name}: {heads} {name} do not divide {channels} channels")
        if self.batch > 0 and self.steps < 1:
            problems.append(f"examples: {self.examples} is less than one batch of {self.batch}")
        return problems

    def _shares(self) -> list[str]:
        problems = []
        if not self.depths or not all(0 < depth <= 1 for depth in self.depths):
            problems.append(f"depths: {self.depths} are not fractions of the encoder, above 0 and up to 1")
        if not 0 < self.validation_share < 1 or not 0 < self.test_share < 1:
            problems.append("validation_share, test_share: must be between 0 and 1")
        elif self.validation_share + self.test_share > 0.9:
            problems.append(
                f"validation_share, test_share: {self.validation_share} and {self.test_share} leave too little"
            )
        problems += [
            f"{name}: {value} is not a probability"
            for name in ("jitter", "grayscale")
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1
        ]
        if not 1 <= self.resize <= 8:
            problems.append(f"resize: {self.resize} is not between 1 (nothing to crop) and 8")
        return problems

    def _training(self) -> list[str]:
        problems = []
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout: {self.dropout} is not a share, from 0 to below 1")
        if not self.lrs or min(self.lrs) <= 0:
            problems.append(f"lrs: {self.lrs} are not positive learning rates")
        if not 0 <= self.warmup <= 1:
            problems.append(f"warmup: {self.warmup} must be from 0 to 1, a fraction of the training")
        problems += [
            f"{name}: {getattr(self, name)} is negative"
            for name in ("end_lr", "weight_decay")
            if getattr(self, name) < 0
        ]
        if not 0 < self.cache_gb < math.inf:
            problems.append(f"cache_gb: {self.cache_gb} must be a positive number of gigabytes")
        trained = set(self.kinds) & set(TRAINED) and (self.readout is not None or self.trains)
        if self.cache and self.augmented and trained:
            problems.append(UNCACHED)
        return problems

    def _unused(self) -> list[str]:
        """Fields that were given and would have no effect."""
        reasons: dict[str, str] = {}
        if not self.augmented:
            reasons |= dict.fromkeys(("flip", "jitter", "grayscale"), "only used with --augment yes")
        if not self.cache:
            reasons["cache_gb"] = "only used with --cache"
        if self.queries is not None:
            reasons["heads"] = "not used with --queries, of which each is a head"
        if not set(self.kinds) & set(TRAINED):
            reasons |= dict.fromkeys(TRAINING - CACHE, f"nothing is trained with --readout {self.readout}")
        if "solved" not in self.kinds:
            reasons |= dict.fromkeys(("appearance", "shots"), "only used by solved readouts")
        if "attention" not in self.kinds:
            reasons |= dict.fromkeys((*ATTENTION, "query_patch"), "only used by attention readouts")
        for name in set().union(*(row.fields for row in TASKS.values())) - self.row.fields:
            users = ", ".join(row.name for row in TASKS.values() if name in row.fields)
            reasons[name] = f"not used by --task {self.task}, only by {users}"
        return [f"{name}: {why}" for name, why in sorted(reasons.items()) if getattr(self, name) != _DEFAULTS[name]]


_DEFAULTS = {field.name: field.default for field in fields(EvaluateConfig)}
