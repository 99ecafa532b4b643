"""Figures of every depth while a run trains: RankMe, CKA to an earlier moment, a probe over time (`run.watch`).

They are of the middle clips, whole and unmasked, of a few videos that are read once, before training begins. Each look
is a line of `watch.jsonl`. The features that the next ones are compared with are kept in the run folder, so that a
resumed run compares with the same. No bit of the run depends on any of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerlock.config import Config
from layerlock.data import batches, crop_and_flip
from layerlock.data.folder import FolderSource
from layerlock.data.index import Index, build_index
from layerlock.encoders.run import checkpoints_of
from layerlock.errors import LayerlockError
from layerlock.features import Reader, mean_pooled
from layerlock.features.clips import SpreadViews, plain_clip
from layerlock.features.probe import check_solvable, probe_hits
from layerlock.files import write_whole
from layerlock.measures import rank
from layerlock.measures.moments import Moments
from layerlock.measures.similarity import Alignment
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.readout import over_time, standardized
from layerlock.model.vit import ViT
from layerlock.process import put_back
from layerlock.progress import INDEXING, Progress
from layerlock.train.folder import RunFolder, by_step

MOST, FEWEST = 256, 8
"""clips that are watched, of all that there are evenly spread; fewer than the second are refused"""
BATCH = 16
"""clips at a time"""
Moment = Literal["switch", "look"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Features `[V, D]` of every depth after `step` updates, of the videos of that fingerprint: at a switch, or, before
    the first one, at any look.
    """

    step: int
    moment: Moment
    videos: str
    features: Sequence[Tensor]


class Watch:
    """The clips that are watched, and what is done at each look."""

    def __init__(self, config: Config, folder: RunFolder, video_vtchw: Tensor, index: Index, videos: str) -> None:
        self.config, self.folder = config, folder
        self.video_vtchw, self.videos = video_vtchw, videos
        self.label_v, self.group_v = torch.tensor(index.labels).long(), torch.tensor(index.group_numbers)
        self.held: tuple[int, list[Tensor], list[Tensor]] | None = None
        """the step of the last look, its mean-pooled features, and those that are pooled over time"""

    def look(self, vit: ViT, step: int, *, switch: bool = False) -> None:
        """Writes the figures of a backbone after `step` updates, if it is time for them: every `run.watch_every` steps,
        at a `switch` and at the end. What an interrupted run has written already is left as it is.
        """
        if not switch and step % self.config.run.watch_every and step != self.config.steps:
            return
        before = newest(self.folder.references)
        new_line = all(line["step"] != step for line in self.folder.watched())
        after_switch = before is not None and before.moment == "switch"
        there = before is not None and before.step == step and (after_switch or not switch)
        new_reference = not there and (switch or not after_switch)
        if not new_line and not new_reference:
            return
        with put_back():
            features, changes = self._features(vit, step)
            if new_line:
                line = {"step": step, "clips": len(self.video_vtchw)} | self.figures(features, changes, before)
                self.folder.write_watched(line)
            if new_reference:
                moment: Moment = "switch" if switch else "look"
                self._keep(Reference(step=step, moment=moment, videos=self.videos, features=features))

    def _features(self, vit: ViT, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """Features of every depth: mean-pooled, `[V, D]` each, and as `over_time` pools them."""
        if self.held is None or self.held[0] != step:
            encoder = Encoder.around(vit, clip_shape(self.config))
            places = [(encoder.name, depth) for depth in range(encoder.depth + 1)]
            reader, device = (
                Reader({encoder.name: encoder}, places, partial(_both, times=vit.grid[0])),
                vit.embed.weight.device,
            )
            with torch.compiler.set_stance("force_eager"):  # whole clips would be one more variant of every block
                parts = [reader.read(part.to(device)) for part in self.video_vtchw.split(BATCH)]
            both = [torch.cat([part[place] for part in parts]) for place in places]
            width = vit.config.width
            self.held = step, [x_vw[:, :width] for x_vw in both], [x_vw[:, width:] for x_vw in both]
        return self.held[1:]

    def figures(
        self, features: Sequence[Tensor], changes: Sequence[Tensor], before: Reference | None
    ) -> dict[str, Any]:
        """RankMe, unbiased linear CKA to the features `before` and the accuracy of a probe over time of each depth. A
        figure that is not defined is None, and `why` says so.
        """
        why: dict[str, str] = {}

        def of_depths(name: str, figure: Callable[[int], float]) -> list[float | None]:
            return [_value(figure, depth, features[depth], name, why) for depth in range(len(features))]

        return {
            "against": before.step if before else None,
            "rankme": of_depths("rankme", lambda depth: rank.rankme(Moments.of(features[depth]).uncentred())),
            "cka": of_depths("cka", lambda depth: self._cka(features[depth], before, depth)),
            "probe": of_depths("probe", lambda depth: self._probe(changes[depth])),
            "why": why,
        }

    def _cka(self, x_vd: Tensor, before: Reference | None, depth: int) -> float:
        if before is None:
            raise ValueError("there is no look before")
        if before.videos != self.videos:
            raise ValueError("other videos were watched before")
        alignment = Alignment(unbiased=True)
        alignment.add([x_vd, before.features[depth]])
        return float(alignment.cka()[0, 1])

    def _probe(self, x_vd: Tensor) -> float:
        known_v = self.label_v >= 0
        if not known_v.any():
            raise ValueError("the videos have no classes")
        return float(probe_hits(x_vd[known_v], self.label_v[known_v], self.group_v[known_v]).mean())

    def _keep(self, reference: Reference) -> None:
        """Writes a reference and removes those that no checkpoint would go on from."""
        folder = self.folder.references
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {str(depth): x_vd.contiguous() for depth, x_vd in enumerate(reference.features)}
        facts = {"moment": reference.moment, "videos": reference.videos}
        path = folder / f"step-{reference.step:08d}.safetensors"
        write_whole(path, lambda part: save_file(tensors, part, facts))
        there = by_step(folder)
        resumable = [*checkpoints_of(self.folder.checkpoints), reference.step]
        wanted = {max((step for step in there if step <= each), default=None) for each in resumable}
        for step in there.keys() - wanted:
            there[step].unlink(missing_ok=True)


def _both(x_bnd: Tensor, *, times: int) -> Tensor:
    """Mean-pooled features, and behind them what changes: actions are lost in a mean."""
    return torch.cat([mean_pooled(x_bnd), over_time(standardized(x_bnd), times).cpu()], -1)


def _value(figure: Callable[[int], float], depth: int, x_vd: Tensor, name: str, why: dict[str, str]) -> float | None:
    """A figure of a depth; None where it is not defined, with the first reason of its `name` in `why`."""
    try:
        if not x_vd.isfinite().all():
            raise ValueError("features are not finite")
        value = figure(depth)
        if math.isnan(value):
            raise ValueError("features do not vary")
    except ValueError as error:
        why.setdefault(name, f"depth {depth}: {error}")
        return None
    return value


def newest(folder: Path) -> Reference | None:
    """The last reference that was written."""
    there = by_step(folder)
    if not there:
        return None
    with safe_open(there[max(there)], "pt") as tensors:
        facts, depths = tensors.metadata(), len(tensors.keys())
        features = [tensors.get_tensor(str(depth)) for depth in range(depths)]
    return Reference(step=max(there), moment=facts["moment"], videos=facts["videos"], features=features)


def clip_shape(config: Config) -> ClipShape:
    """The clips of a run as those of an encoder."""
    clip = config.clip
    return ClipShape(frames=clip.frames, stride=clip.stride, size=clip.size, fps=clip.fps)


def open_watch(config: Config, folder: RunFolder, *, quiet: bool = False) -> Watch | None:
    """Reads the clips that a run is watched on; None where it is not.

    Raises LayerlockError for videos that cannot be used, fewer than `FEWEST` of them, and classes without scikit-learn.
    """
    data, workers = config.run.watch, config.run.workers
    if data is None:
        return None
    try:
        with Progress(INDEXING, quiet) as progress:
            index = build_index(data, workers or None, progress=progress).spread(MOST)
        if max(index.labels) > 0:
            check_solvable("a probe of classes")
        video_vtchw, lost = _clips(index, config)
    except LayerlockError as error:
        raise LayerlockError(f"run.watch: {error}") from None
    kept = [row for row, video in enumerate(index.videos) if video.path not in lost]
    if len(kept) < FEWEST:
        reasons = f"; the first that cannot be used: {', '.join(min(lost.items()))}" if lost else ""
        raise LayerlockError(f"run.watch: {data}: {len(kept)} videos are too few; {FEWEST} are needed{reasons}")
    index = index.take(kept)
    return Watch(config, folder, video_vtchw[kept], index, FolderSource(index, config.clip, seed=0).fingerprint)


def _clips(index: Index, config: Config) -> tuple[Tensor, dict[str, str]]:
    """The middle clip of each video, uint8 `[V, T, 3, S, S]`, black where it cannot be decoded, and why it cannot."""
    views = SpreadViews(FolderSource(index, plain_clip(clip_shape(config)), seed=0), 1)
    count, clips, lost = len(views), list[Tensor](), dict[str, str]()
    batch = min(BATCH, count)
    with closing(batches(views, batch=batch, start=0, stop=-(-count // batch), workers=config.run.workers)) as loader:
        for read in loader:
            clips.append(crop_and_flip(read))
            lost |= dict(read.skipped)
    return torch.cat(clips)[:count], lost
