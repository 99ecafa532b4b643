"""`layerlock analyze depth`: what every depth of one or several encoders is like, from one pass over a data set.

Figures are of whole clips, without masks: the middle clip of each video, cropped in the centre; those of occlusion, of
views and of the ladder say what else is read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from layerlock import together
from layerlock.analyze.figures import Figures, Seen
from layerlock.analyze.ladder import climb
from layerlock.analyze.occlusion import one_patch
from layerlock.analyze.table import write
from layerlock.analyze.views import random_view
from layerlock.config import RunConfig
from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource
from layerlock.data.index import Index, build_index
from layerlock.encoders import FrozenEncoder, open_encoder
from layerlock.encoders.checks import check_features
from layerlock.encoders.run import checkpoints_of
from layerlock.errors import ConfigError, LayerlockError
from layerlock.features import Place, Reader, Readings, mean_pooled
from layerlock.features.clips import SpreadViews, plain_clip
from layerlock.features.divided import divided, led
from layerlock.process import keep_freed_memory
from layerlock.progress import INDEXING, Progress
from layerlock.settings import to_dict, type_problems
from layerlock.train.device import pick_device, pick_precision, set_threads

FEWEST = 8
"""clips without which there are no figures at all"""
POINTS = 1_000
"""clips, at most, whose pooled features are kept for figures of their neighbours"""


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """What is analysed, on which clips."""

    encoders: tuple[str, ...] = ()
    """names of encoders (docs/encoders.md)"""
    steps: Literal["all"] | tuple[int, ...] | None = None
    """checkpoints that stand for each run folder among the encoders: all that are there, or those after these steps;
    None: the run's exported encoder"""
    data: str = ""
    """a folder or a list of videos; with classes there are figures of what features say of them"""
    data_root: str | None = None
    """folder that the paths of a list begin at; None: the list's"""
    out: str = "runs/depth"
    """folder to write"""
    clips: int | None = None
    """videos that are read, evenly spread over the data; None: all"""
    labelled: int = 5_000
    """videos, at most, that the figures of classes are of: their features are kept"""
    occlusion: bool = False
    """whether labelled clips, and gratings, are also read with one patch of them seen, for OccDrop: a second pass"""
    views: int = 0
    """augmented views of each clip that are also read, for LiDAR: as many more passes"""
    ladder: int = 0
    """gratings of each of two kinds that are generated and probed at every depth (docs/analyze.md)"""
    batch: int = 32
    """clips at a time; figures of batches, as those of CKA, are of so many"""
    seed: int = 0
    """of random weights, and of what figures draw"""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the encoders; auto: bf16 if the hardware supports it, else fp32"""
    workers: int = 2
    """processes that decode, for each shape of clips"""
    threads: int | None = None
    """CPU threads; None: on a CPU OMP_NUM_THREADS, without it one for each processor"""

    def check(self, held: Sequence[str] = ()) -> None:
        """Raises ConfigError with all that is wrong; `held` are names of encoders that are given as objects."""
        problems = list(type_problems(self))
        if not problems:
            names = (*self.encoders, *held)
            problems += [] if names else ["encoders: none is named"]
            twice = sorted({name for name in names if names.count(name) > 1})
            problems += [f"encoders: {name} is named twice" for name in twice]
            problems += ["steps: none is named"] if self.steps == () else []
            problems += [f"{name}: empty" for name in ("data", "out") if not getattr(self, name)]
            if self.clips is not None and self.clips < FEWEST:
                problems.append(f"clips: {self.clips} are too few; there are figures from {FEWEST} on")
            if self.batch < 4:
                problems.append(f"batch: {self.batch}: an unbiased CKA needs batches of 4")
            if self.views == 1:
                problems.append("views: 1: LiDAR needs two views of a clip")
            if self.threads is not None and self.threads < 1:
                problems.append(f"threads: {self.threads} is not positive")
            negative = [name for name in ("labelled", "views", "ladder", "workers") if getattr(self, name) < 0]
            problems += [f"{name}: {getattr(self, name)} is negative" for name in negative]
        if problems:
            raise ConfigError(problems)


@together.job()
def analyze_depth(config: DepthConfig, given: Sequence[FrozenEncoder] = (), *, quiet: bool = False) -> dict[str, Any]:
    """The figures of every depth, as the page shows them (`report/analysis.py`), and as `depth.json` and `depth.csv` in
    `config.out`. `given` are encoders that are held already, beside those that the config names.

    Raises ConfigError and LayerlockError for settings, encoders and data that cannot be used. Of several processes of a
    job all compute features; the first one does all else, and tells the figures.
    """
    config.check(held=[one.name for one in given])
    run = RunConfig(device=config.device, precision=config.precision)
    device = pick_device(run.device)
    keep_freed_memory(device)
    set_threads(config.threads, device)
    compute = pick_precision(run, device)
    encoders = {name: open_encoder(name, seed=config.seed, device=device) for name in _names(config)}
    for made in encoders.values():
        made.prepare(device, compute)
    encoders |= {one.name: one for one in given}
    for encoder in encoders.values():
        check_features(encoder, device)
    together.agree(to_dict(config) | {"encoders": list(encoders), "device": device.type, "precision": str(compute)})
    return led(encoders, device, lambda: _analyzed(config, encoders, device, quiet))


def _analyzed(
    config: DepthConfig, encoders: Mapping[str, FrozenEncoder], device: torch.device, quiet: bool
) -> dict[str, Any]:
    with Progress(INDEXING, quiet) as progress:
        index = build_index(config.data, config.workers or None, root=config.data_root, progress=progress)
    index = index.spread(config.clips)
    if len(index) < FEWEST:
        raise LayerlockError(f"{index.root}: {len(index)} videos are too few; there are figures from {FEWEST} on")
    kept, lost = _kept(index, config.labelled), dict[str, str]()
    points = _spread_rows(len(index), POINTS)
    figures = Figures(encoders, kept, points, config.seed)
    with Progress("computing features of all depths", quiet) as progress:
        batches = _Batches(config=config, index=index, kept=kept)
        numbers = range(-(-len(index) // batches.size))
        with closing(divided(batches, encoders, device, numbers)) as stream:
            for done, (seen, lost_here) in enumerate(stream, 1):
                figures.add(seen)
                lost |= lost_here
                progress(min(done * config.batch, len(index)), len(index))
    lost |= {index.videos[row].path: why for row, why in figures.not_finite.items()}
    if figures.clips < FEWEST:
        raise LayerlockError(
            f"{index.root}: {figures.clips} of {len(index)} videos could be used, too few; the first of those that "
            f"could not: {', '.join(min(lost.items()))}"
        )
    with Progress("computing figures of all depths", quiet) as progress:
        label_v, group_v = torch.tensor(index.labels).long(), torch.tensor(index.group_numbers)
        found: dict[str, Any] = {"data": config.data, "clips": figures.clips}
        found["classes"] = len(label_v[label_v >= 0].unique()) or None
        found |= figures.found(label_v, group_v, progress)
    if config.ladder:
        with Progress("probing gratings", quiet) as progress:
            metrics, values = climb(
                encoders,
                config.ladder,
                occlusion=config.occlusion,
                batch=config.batch,
                seed=config.seed,
                device=device,
                progress=progress,
            )
        found["metrics"] += [vars(metric) for metric in metrics]
        found["values"] += values
    found["skipped"] = [[name, why] for name, why in sorted(lost.items())]
    write(found, Path(config.out))
    return found


def _names(config: DepthConfig) -> list[str]:
    """The encoders to open: with `steps`, checkpoints in place of runs. ConfigError where there is none of any."""
    if config.steps is None:
        return list(config.encoders)
    found = {name: checkpoints_of(Path(name) / "checkpoints") for name in config.encoders}
    if not any(found.values()):
        raise ConfigError(["steps: none of the encoders is a run folder with checkpoints"])
    names = []
    for name, places in found.items():
        steps = places if config.steps == "all" else config.steps
        names += [f"{name}@{step}" for step in steps] if places else [name]
    return names


def _kept(index: Index, most: int) -> set[int]:
    """Rows with a class, at most so many, evenly spread."""
    rows = [row for row, label in enumerate(index.labels) if label >= 0]
    return {rows[at] for at in _spread_rows(len(rows), most)}


def _spread_rows(count: int, most: int) -> set[int]:
    """Of so many rows at most so many, evenly spread."""
    return {at * count // most for at in range(most)} if count > most else set(range(count))


@dataclass(frozen=True, kw_only=True)
class _Batches:
    """The videos of a batch as all encoders see them at all depths, and what of it could not be decoded and why.
    Encoders that see the same clips share one stream of them.
    """

    config: DepthConfig
    index: Index
    kept: Set[int]

    def __call__(
        self, encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
    ) -> Generator[tuple[Seen, dict[str, str]]]:
        config, index, batch = self.config, self.index, self.size
        sharing: dict[ClipConfig, dict[str, FrozenEncoder]] = {}
        for name, encoder in encoders.items():
            sharing.setdefault(plain_clip(encoder.clip), {})[name] = encoder
        with ExitStack() as stack:
            streams, pooled = [], []
            for clip, alike in sharing.items():
                views = SpreadViews(FolderSource(index, clip, seed=config.seed), 1)
                places = tuple((name, depth) for name, encoder in alike.items() for depth in range(encoder.depth + 1))
                readings = Readings(source=views, places=places, form=Tensor.float, batch=batch, workers=config.workers)
                streams.append(readings(alike, device, numbers))
                stack.enter_context(closing(streams[-1]))
                pooled.append((Reader(alike, places, mean_pooled), clip))
            for number, read in zip(numbers, zip(*streams, strict=True), strict=True):
                lost = {name: why for one in read for name, why in one.clips.skipped}
                rows = range(number * batch, min((number + 1) * batch, len(index)))
                features, one_patches, views_of = dict[Place, Tensor](), dict[Place, Tensor](), dict[Place, Tensor]()
                for one, (reader, clip) in zip(read, pooled, strict=True):
                    features |= one.features
                    if config.occlusion and not self.kept.isdisjoint(rows):
                        one_patches |= reader.read(one_patch(one.video_btchw, one.clips.index_b, config.seed))
                    shown = [
                        reader.read(random_view(one.clips, clip, view, config.seed)) for view in range(config.views)
                    ]
                    views_of |= {place: torch.stack([x[place] for x in shown], 1) for place in reader.places if shown}
                whole = Seen(rows=list(rows), features=features, one_patch=one_patches, views=views_of)
                yield whole.take([at for at, row in enumerate(rows) if views.name(row) not in lost]), lost

    @property
    def size(self) -> int:
        """Clips at a time."""
        return min(self.config.batch, len(self.index))
