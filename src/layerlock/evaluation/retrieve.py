"""Retrieval from its splits to its results: the depth is chosen on one split, and reported on another.

Nothing is trained, so training and validation split together are what the depth is chosen on. In each split every video
asks for those of its class among all others of the split that are not of its group, by the cosine of mean-pooled
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
from layerlock.evaluation.folder import load_tensors, save_tensors
from layerlock.evaluation.gallery import Examples, save_gallery
from layerlock.evaluation.readouts import Candidate, blocks_of
from layerlock.evaluation.results import Evaluation, tabled
from layerlock.evaluation.score import Scores, choose
from layerlock.evaluation.setup import Setup
from layerlock.evaluation.splits.split import Split
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
ALONE = "it asks for nothing: no video of another group of the split is of its class"


def retrieve(setup: Setup) -> tuple[Evaluation, Examples]:
    """Chooses the depth and reports it, for the encoder and its baselines. Raises LayerlockError for unusable data."""
    candidates = tuple(
        Candidate(encoder=name, kind="cosine", block=block, fraction=fraction)
        for name, encoder in setup.encoders.items()
        for block, fraction in blocks_of(setup.config.depths, encoder).items()
    )
    splits = setup.splits
    validation = _scores(setup, candidates, _together(splits.train, splits.validation), setup.folder.validation)
    chosen = choose(validation, candidates, METRICS[0])
    test = _scores(setup, candidates, splits.test, setup.folder.test)
    found = tabled(setup, METRICS, None, candidates, chosen, validation, test, {})
    return found, lambda: save_gallery(setup, _views(setup, splits.test), found)


def _views(setup: Setup, split: Split) -> SpreadViews:
    clip = still_clip(setup.config, setup.ours.clip)
    return SpreadViews(split.source(clip, setup.config.seed, with_depth=False), 1)


def _together(a: Split, b: Split) -> Split:
    joined = {name: getattr(a.index, name) + getattr(b.index, name) for name in ("videos", "labels", "groups")}
    index = replace(a.index, **joined)
    apart = None if a.stretches is None or b.stretches is None else a.stretches + b.stretches
    return Split(index=index, stretches=apart)


def _scores(setup: Setup, candidates: Sequence[Candidate], split: Split, file: Path) -> Scores:
    """Average precision and hits of every query of a split; features are kept in `file`."""
    views = _views(setup, split)
    found = load_tensors(file) or _pooled(setup, candidates, views, file)
    features, lost = found[0], found[1]["lost"]
    finite_v = torch.stack([features[str(candidate)].isfinite().all(1) for candidate in candidates]).all(0).tolist()
    names = [views.name(row) for row in range(len(split))]
    lost = {name: NOT_FINITE for name, finite in zip(names, finite_v, strict=True) if not finite} | lost
    rows_v = torch.tensor([row for row, name in enumerate(names) if name not in lost], dtype=torch.int64)
    label_v, group_v = torch.tensor(split.index.labels)[rows_v], split.group_v[rows_v]
    try:
        asked = {
            str(candidate): leave_one_out(features[str(candidate)][rows_v], label_v, ks=(), group_v=group_v)
            for candidate in candidates
        }
    except ValueError as error:
        raise LayerlockError(
            f"{split.index.root}: nothing to retrieve in a split of {len(rows_v)} videos ({error})"
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
    setup: Setup, candidates: Sequence[Candidate], views: SpreadViews, file: Path
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Mean-pooled features `[V, D]` of each candidate, float32, and the videos that could not be decoded."""
    config = setup.config
    with setup.progress(f"features of {len(views)} videos") as progress:
        done = count(1)
        features, lost = pooled_features(
            views,
            setup.encoders,
            [candidate.place for candidate in candidates],
            batch=config.batch,
            device=setup.device,
            workers=config.workers,
            each=lambda _: progress(next(done), -(-len(views) // config.batch)),
        )
    pooled = {str(candidate): features[candidate.place] for candidate in candidates}
    save_tensors(file, pooled, {"lost": lost})
    return pooled, {"lost": lost}
