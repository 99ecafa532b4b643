"""A few test clips with what was read from them, kept for the report."""

from __future__ import annotations

import torch

from layerlock.data import collate, crop_and_flip
from layerlock.evaluation.clips import SpreadViews
from layerlock.evaluation.opened import Opened
from layerlock.evaluation.readouts import Reader, Setting
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.saved import save_tensors
from layerlock.evaluation.sweep import Sweep

FRAMES = 4
"""frames kept of a clip, evenly spread"""


def save_examples(opened: Opened, sweep: Sweep, setting: Setting, views: SpreadViews, found: Evaluation) -> None:
    """Writes pictures of the best and the worst test clips: `video` uint8 `[K, F, 3, S, S]` and, for depth,
    `predicted` and `true` metres `[K, F, S, S]`, best first.
    """
    reader = Reader({setting.encoder: opened.encoders[setting.encoder]}, [setting])
    numbers = [clip.video for clip in (*found.best, *found.worst)]
    kept: dict[str, list[torch.Tensor]] = {"video": [], "predicted": [], "true": []}
    for number in numbers:
        (sample,) = SpreadViews(views.folder, 1, [number]).samples(0)
        batch = collate([sample], views.clip.size).to(opened.device)
        video_btchw, target = crop_and_flip(batch), sweep.task.target(batch)
        frames = torch.linspace(0, video_btchw.shape[1] - 1, FRAMES).round().long()
        kept["video"].append(video_btchw[0, frames].cpu())
        if sweep.task.with_depth:
            kept["predicted"].append(sweep.predict(setting, reader.read(video_btchw))[0, frames].cpu())
            kept["true"].append(target[0, frames].cpu())
    save_tensors(opened.folder.examples, {name: torch.stack(rows) for name, rows in kept.items() if rows}, {})
