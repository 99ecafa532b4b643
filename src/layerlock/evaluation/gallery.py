"""A few test clips with what was read from them, kept for the report."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from layerlock.data import collate, crop_and_flip
from layerlock.evaluation.folder import save_tensors
from layerlock.evaluation.readouts import Candidate
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.setup import Setup
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks.depth import valid_depth
from layerlock.features import Reader
from layerlock.features.clips import SpreadViews

Examples = Callable[[], None]
"""saves what the report shows of an evaluation that is done"""
FRAMES = 4
"""frames kept of a clip, evenly spread"""


def save_gallery(
    setup: Setup, views: SpreadViews, found: Evaluation, depth: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Writes pictures of the best and the worst test clips, best first: `video` uint8 `[K, F, 3, S, S]` and, where
    `depth` predicts it from clips `[B, T, 3, S, S]`, `predicted` and `true` metres `[K, F, S, S]`.
    """
    kept: dict[str, list[Tensor]] = {}
    for clip in (*found.best, *found.worst):
        (sample,) = SpreadViews(views.folder, 1, [clip.video]).samples(0)
        batch = collate([sample], views.clip.size).to(setup.device)
        video_btchw = crop_and_flip(batch)
        shown = {"video": video_btchw}
        if depth is not None:
            shown |= {"predicted": depth(video_btchw), "true": valid_depth(batch)}
        frames = torch.linspace(0, video_btchw.shape[1] - 1, FRAMES).round().long()
        for name, x in shown.items():
            kept.setdefault(name, []).append(x[0].cpu()[frames])
    save_tensors(setup.folder.examples, {name: torch.stack(rows) for name, rows in kept.items()}, {})


def depth_reader(setup: Setup, sweep: Sweep, candidate: Candidate) -> Callable[[Tensor], Tensor] | None:
    """What a readout of depth says of clips; None for other tasks."""
    if not sweep.task.with_depth:
        return None
    reader = Reader(setup.encoders, [candidate.place])
    return lambda video_btchw: sweep.predict(candidate, reader.read(video_btchw))
