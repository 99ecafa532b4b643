"""Retrieval from its parts to its results: the depth is chosen on one part, and reported on another.

Nothing is trained, so training and validation part together are what the depth is chosen on. In each part every video
asks for those of its class among all others of the part that are not of its group, by the cosine of mean-pooled
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.evaluation.cutting import Part
from layerlock.evaluation.examples import Examples, save_examples
from layerlock.evaluation.opened import Opened
from layerlock.evaluation.readouts import Setting, blocks_of
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.saved import load_tensors, save_tensors
from layerlock.evaluation.scoring import Scores
from layerlock.evaluation.tables import choose, tabled
from layerlock.evaluation.tasks import Metric
from layerlock.evaluation.tasks.clip import still_clip
from layerlock.features import pooled_features
from layerlock.features.clips import SpreadViews
from layerlock.features.neighbours import leave_one_out

METRICS = (
    Metric(name="mAP", higher_is_better=True, percent=True),
    Metric(name="top-1", higher_is_better=True, percent=True),
    Metric(name="top-5", higher_is_better=True, percent=True),
)
NOT_FINITE = "its features are not finite"
ALONE = "it asks for nothing: no video of another group of the part is of its class"


def retrieve(opened: Opened) -> tuple[Evaluation, Examples]:
    """Chooses the depth and reports it, for the encoder and its baselines. Raises LayerlockError for unusable data."""
    settings = tuple(
        Setting(encoder=name, kind="cosine", block=block, fraction=fraction)
        for name, encoder in opened.encoders.items()
        for block, fraction in blocks_of(opened.config.depths, encoder).items()
    )
    parts = opened.parts
    validation = _scores(opened, settings, _together(parts.train, parts.validation), opened.folder.validation)
    chosen = choose(validation, settings, METRICS[0])
    test = _scores(opened, settings, parts.test, opened.folder.test)
    found = tabled(opened, METRICS, None, settings, chosen, validation, test, {})
    return found, lambda: save_examples(opened, _views(opened, parts.test), found)


def _views(opened: Opened, part: Part) -> SpreadViews:
    clip = still_clip(opened.config, opened.ours.clip)
    return SpreadViews(part.source(clip, opened.config.seed, with_depth=False), 1)


def _together(a: Part, b: Part) -> Part:
    joined = {name: getattr(a.index, name) + getattr(b.index, name) for name in ("videos", "labels", "groups")}
    index = replace(a.index, **joined)
    apart = None if a.stretches is None or b.stretches is None else a.stretches + b.stretches
    return Part(index=index, stretches=apart)


def _scores(opened: Opened, settings: Sequence[Setting], part: Part, file: Path) -> Scores:
    """Average precision and hits of every query of a part; features are kept in `file`."""
    views = _views(opened, part)
    found = load_tensors(file) or _pooled(opened, settings, views, file)
    features, lost = found[0], found[1]["lost"]
    finite_v = torch.stack([features[str(setting)].isfinite().all(1) for setting in settings]).all(0).tolist()
    names = [views.name(row) for row in range(len(part))]
    lost = {name: NOT_FINITE for name, finite in zip(names, finite_v, strict=True) if not finite} | lost
    rows_v = torch.tensor([row for row, name in enumerate(names) if name not in lost], dtype=torch.int64)
    label_v, group_v = torch.tensor(part.index.labels)[rows_v], part.group_v[rows_v]
    try:
        asked = {
            str(setting): leave_one_out(features[str(setting)][rows_v], label_v, ks=(), group_v=group_v)
            for setting in settings
        }
    except ValueError as error:
        raise LayerlockError(
            f"{part.index.root}: nothing to retrieve in a part of {len(rows_v)} videos ({error})"
        ) from None
    query_q = next(iter(asked.values())).query_q
    alone = set(rows_v.tolist()) - set(rows_v[query_q].tolist())
    return Scores(
        score_svm={
            name: torch.stack([one.average_precision_q, *((one.first_q < k).double() for k in (1, 5))], 1)[None]
            for name, one in asked.items()
        },
        predicted_v={name: label_v[one.nearest_q] for name, one in asked.items()},
        label_v=label_v[query_q],
        video_v=rows_v[query_q],
        group_v=group_v[query_q],
        left_out=(*lost.items(), *((views.name(row), ALONE) for row in sorted(alone))),
    )


def _pooled(
    opened: Opened, settings: Sequence[Setting], views: SpreadViews, file: Path
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Mean-pooled features `[V, D]` of each setting, float32, and the videos that could not be decoded."""
    config = opened.config
    with opened.progress(f"features of {len(views)} videos") as progress:
        done = count(1)
        features, lost = pooled_features(
            views,
            opened.encoders,
            [setting.place for setting in settings],
            batch=config.batch,
            device=opened.device,
            workers=config.workers,
            each=lambda _: progress(next(done), -(-len(views) // config.batch)),
        )
    pooled = {str(setting): features[setting.place] for setting in settings}
    save_tensors(file, pooled, {"lost": lost})
    return pooled, {"lost": lost}
