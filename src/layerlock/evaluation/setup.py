"""What an evaluation works with, setup and checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.remote import is_remote
from layerlock.encoders import FrozenEncoder, open_encoder
from layerlock.encoders.checks import check_features, fingerprint
from layerlock.errors import LayerlockError
from layerlock.evaluation.baselines import baseline_encoders
from layerlock.evaluation.config import FEW_VIDEOS, EvaluateConfig
from layerlock.evaluation.folder import EvaluationFolder
from layerlock.evaluation.readouts import kinds_for
from layerlock.evaluation.splits.cut import Cutting
from layerlock.evaluation.splits.open import open_splits
from layerlock.evaluation.splits.shots import ranks
from layerlock.evaluation.splits.split import Split, Splits
from layerlock.evaluation.tasks import Task
from layerlock.features.clips import SpreadViews
from layerlock.process import keep_freed_memory
from layerlock.progress import INDEXING, Progress
from layerlock.train.device import pick_device, pick_precision, set_threads

OURS = "encoder"
"""what the encoder under evaluation is called beside its baselines"""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The splits of the data, the encoder as `OURS` and its baselines, and where results go."""

    config: EvaluateConfig
    folder: EvaluationFolder
    device: torch.device
    encoders: Mapping[str, FrozenEncoder]
    splits: Splits
    task: Task
    notes: tuple[str, ...]
    """what is odd about the splits, and which default was taken"""
    quiet: bool

    @property
    def ours(self) -> FrozenEncoder:
        """The encoder under evaluation."""
        return self.encoders[OURS]

    def views(self, split: Split) -> SpreadViews:
        """The clips that each video of a split is scored on, always the same."""
        return SpreadViews(self.source(split, self.config.still_clip(self.ours.clip)), self.task.views)

    def source(self, split: Split, clip: ClipConfig) -> FolderSource:
        """Clips of a split, with the task's target."""
        return split.source(clip, self.config.seed, (self.task.target.name,))

    @property
    def label_v(self) -> Tensor:
        """The class of each training video, int64 `[V]`; 0 where the target is none."""
        values = self.splits.train.values(self.task.target) if self.task.classes else [0] * len(self.splits.train)
        return torch.tensor(values, dtype=torch.int64)

    def fitted(self, shots: int | None, draw: int) -> Tensor | None:
        """The training videos that a solved readout is fitted to, bool `[V]`: `shots` of each class; None: all."""
        if shots is None:
            return None
        return ranks(self.label_v, self.splits.train.group_v, seed=self.config.seed, draw=draw) < shots

    def progress(self, doing: str) -> Progress:
        """A bar for a piece of work."""
        return Progress(doing, self.quiet)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The encoder under evaluation as `OURS` and its baselines, on a device; `weights` tell it from others."""

    device: torch.device
    encoders: Mapping[str, FrozenEncoder]
    weights: str


def open_encoders(config: EvaluateConfig, encoder: FrozenEncoder | None) -> Opened:
    """Opens the encoder (the config's, where none is given) and its baselines; one that is given stays where it is and
    as precise as it is. Raises ConfigError and LayerlockError for whatever is wrong with them.
    """
    run = config.run()
    device = pick_device(run.device)
    keep_freed_memory(device)
    set_threads(config.threads, device)
    compute = pick_precision(run, device)
    ours = encoder or open_encoder(config.encoder, seed=config.seed, device=device)
    weights = fingerprint(ours)  # before they are cast: the precision may be another in a resume
    others = baseline_encoders(ours, config.seed) if config.baselines == "yes" else {}
    for made in (*others.values(), *(() if encoder else (ours,))):
        made.prepare(device, compute)
    check_features(ours, device)
    return Opened(device=device, encoders={OURS: ours, **others}, weights=weights)


def set_up(config: EvaluateConfig, folder: EvaluationFolder, opened: Opened, *, resume: bool, quiet: bool) -> Setup:
    """Opens the data, and makes the folder ready.

    Raises ConfigError and LayerlockError for whatever is wrong with them.
    """
    ours = opened.encoders[OURS]
    row, clip = config.row, config.still_clip(ours.clip)
    target = row.target_for(config)
    cutting = Cutting(
        by=config.split_by,
        validation=config.validation_share,
        test=config.test_share,
        seed=config.seed,
        target=target,
        group=config.group,
        shared=config.shared_groups == "allow",
        span=clip.cut(0).span,
    )
    with Progress(INDEXING, quiet) as progress:
        read = partial(
            build_index,
            root=config.data_root,
            targets=None if target.kind == "map" else {target.name: target.kind},
            workers=config.workers or None,
            progress=progress,
        )
        splits = open_splits(
            config.data if is_remote(config.data) else str(Path(config.data)), config.test_data, cutting, read
        )
    task = row(config, splits, ours)
    fitting = config.fitting(len(splits.train))
    if not kinds_for(ours, fitting):
        raise LayerlockError(f"{ours.name}: numbers of whole clips, which solved readouts of a class or a number read")
    folder.begin(config, resume=resume)
    folder.bind(config, {"encoder": opened.weights, **splits.fingerprints(clip, target.name)})
    notes = splits.notes
    if config.readout is None and fitting.readout == "solved":
        limit = f"{FEW_VIDEOS:,} training videos"
        notes += (f"Readouts are solved, the default below {limit}; --readout all trains others",)
    return Setup(
        config=fitting,
        folder=folder,
        device=opened.device,
        encoders=opened.encoders,
        splits=splits,
        task=task,
        notes=notes,
        quiet=quiet,
    )
