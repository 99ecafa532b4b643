"""One vector for every video of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock.data import Views, open_source
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.features.clips import plain_clip
from layerlock.features.read import FeatureBatch, pooled_features
from layerlock.model.encoder import HEADLINE, block_at
from layerlock.process import keep_freed_memory, put_back
from layerlock.progress import INDEXING, Progress


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One vector a video, in the order of the source; `rejected` as (path, reason)."""

    features_vd: Tensor
    names: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]


def embed_videos(
    encoder: FrozenEncoder,
    data: str,
    *,
    root: str | None = None,
    depth: int | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
) -> Embedded:
    """Mean-pooled features of the middle clip of every video of `data`, where a list's paths begin at `root`, of an
    encoder that is on `device`.

    Raises LayerlockError for unusable data, and for a `batch` below 1.
    """
    if batch < 1:
        raise LayerlockError(f"batch: {batch} is not positive")
    if data == "synthetic":
        raise LayerlockError(
            "the synthetic world has no end: write videos of it with `layerlock synth` and embed those"
        )
    with Progress(INDEXING) as progress:
        source = open_source(data, plain_clip(encoder.clip), seed=0, root=root, workers=workers, progress=progress)
    return embed_source(encoder, Views(source), depth=depth, batch=batch, workers=workers, device=device)


@put_back()
def embed_source(
    encoder: FrozenEncoder,
    views: Views,
    *,
    depth: int | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
    each: Callable[[FeatureBatch], None] | None = None,
) -> Embedded:
    """Mean-pooled features `[V, D]` (float32, on the CPU) of every video of `views`; `each` is shown every batch.

    Videos that cannot be decoded are left out and listed. Raises LayerlockError where none is left.
    """
    device = torch.device(device)
    keep_freed_memory(device)
    place = encoder.name, block_at(HEADLINE, encoder.depth) if depth is None else depth
    features, lost = pooled_features(
        views, {encoder.name: encoder}, [place], batch=batch, device=device, workers=workers, each=each
    )
    names = [views.name(row) for row in range(len(views))]
    kept = [row for row, name in enumerate(names) if name not in lost]
    if not kept:
        raise LayerlockError(f"none of {len(names)} videos could be decoded; the first: {next(iter(lost.items()))}")
    return Embedded(
        features_vd=features[place][kept],
        names=tuple(names[row] for row in kept),
        rejected=(*views.rejected, *lost.items()),
    )
