"""A few test clips with what was read from them, kept for the report."""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock.data import collate, crop_and_flip
from layerlock.evaluation.folder import save_tensors
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.setup import OURS, Setup
from layerlock.evaluation.sweep import Sweep
from layerlock.features import Reader
from layerlock.features.clips import SpreadViews

FRAMES = 4
"""frames kept of a clip, evenly spread"""


def save_gallery(setup: Setup, results: Evaluation, sweep: Sweep | None) -> None:
    """Writes pictures of the best and the worst test clips, best first: `video` uint8 `[K, F, 3, S, S]` and, where the
    target is a map, it and what the first chosen readout predicts, `true` and `predicted`, `[K, F, S, S]`.
    """
    views = SpreadViews(setup.views(setup.splits.test).folder, 1)
    kept: dict[str, list[Tensor]] = {}
    for clip in (*results.best, *results.worst):
        batch = collate(views.samples(clip.video), views.clip.size).to(setup.device)
        video_btchw = crop_and_flip(batch)
        shown = {"video": video_btchw}
        if setup.task.target.kind == "map" and sweep is not None:
            shown |= {"predicted": _predicted(setup, results, sweep, video_btchw), "true": setup.task.target_of(batch)}
        frames = torch.linspace(0, video_btchw.shape[1] - 1, FRAMES).round().long()
        for name, x in shown.items():
            kept.setdefault(name, []).append(x[0].cpu()[frames])
    save_tensors(setup.folder.gallery, {name: torch.stack(rows) for name, rows in kept.items()}, {})


def _predicted(setup: Setup, results: Evaluation, sweep: Sweep, video_btchw: Tensor) -> Tensor:
    row = next(row for row in results.rows if row.encoder == OURS)
    candidate = next(
        one
        for one in sweep.readouts
        if (one.encoder, one.kind, one.block, one.lr or None, one.seed) == (OURS, row.kind, row.block, row.lr, 0)
    )
    return sweep.predict(candidate, Reader(setup.encoders, [candidate.place]).read(video_btchw))
