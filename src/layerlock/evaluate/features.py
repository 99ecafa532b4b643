"""Features of whole data sets: every clip once through a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerlock.data import ClipConfig, Source, batches, crop_and_flip, open_source
from layerlock.data.clips import Views
from layerlock.model.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Features:
    """One vector a video, in the order of the source; `rejected` as (path, reason)."""

    features_vd: Tensor
    names: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]


def clip_config(encoder: Encoder) -> ClipConfig:
    """Clips of an encoder's own shape, as evaluation takes them: no margin to crop from, no flip."""
    clip = encoder.clip
    return ClipConfig(frames=clip.frames, stride=clip.stride, size=clip.size, resize=1.0, flip=False)


def embed_videos(encoder: Encoder, data: str, *, depth: int | None = None, batch: int = 16, workers: int = 2) -> Features:
    """Mean-pooled features of the middle clip of every video that `data` names. Raises LayerlockError for unusable data."""
    source = open_source(data, clip_config(encoder), seed=0, workers=workers)
    return embed_source(encoder, Views(source), depth=depth, batch=batch, workers=workers)


@torch.no_grad()
def embed_source(encoder: Encoder, source: Source, *, depth: int | None = None, batch: int = 16, workers: int = 2) -> Features:
    """Mean-pooled features `[V, D]` (float32, on the CPU) of samples 0 .. V - 1 of a source."""
    count, rows, names, lost = len(source), [], [], []
    for clips in batches(source, batch=min(batch, count), start=0, stop=-(-count // min(batch, count)), workers=workers):
        rows.append(encoder(crop_and_flip(clips), depth).float().mean(dim=1).cpu())
        names += clips.names
        lost += clips.skipped
    rejected = tuple(getattr(source, "rejected", ())) + tuple(dict.fromkeys(lost))
    return Features(features_vd=torch.cat(rows)[:count], names=tuple(names[:count]), rejected=rejected)
