"""Features of whole data sets: every video once through a frozen encoder."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock.data import ClipConfig, Source, Views, batches, crop_and_flip, open_source
from layerlock.data.index.progress import IndexProgress
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.tasks.clip import plain_clip
from layerlock.model.encoder import HEADLINE, block_at
from layerlock.process import keep_freed_memory, put_back


@dataclass(frozen=True, kw_only=True)
class Features:
    """One vector a video, in the order of the source; `rejected` as (path, reason)."""

    features_vd: Tensor
    names: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]


def clip_config(encoder: FrozenEncoder) -> ClipConfig:
    """Clips of an encoder's own shape, as evaluation takes them by default: short side and centre crop alike."""
    return plain_clip(EvaluateConfig(), encoder.clip)


def embed_videos(
    encoder: FrozenEncoder,
    data: str,
    *,
    root: str | None = None,
    depth: int | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
    quiet: bool = False,
) -> Features:
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
    with IndexProgress(quiet) as progress:
        source = open_source(data, clip_config(encoder), seed=0, root=root, workers=workers, progress=progress)
    return embed_source(encoder, Views(source), depth=depth, batch=batch, workers=workers, device=device)


@put_back()
@torch.no_grad()
def embed_source(
    encoder: FrozenEncoder,
    source: Source,
    *,
    depth: int | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
) -> Features:
    """Mean-pooled features `[V, D]` (float32, on the CPU) of samples 0 .. V - 1 of a source.

    Samples whose own video could not be decoded are left out and listed. Raises LayerlockError where none is left.
    """
    keep_freed_memory(torch.device(device))
    block = block_at(HEADLINE, encoder.depth) if depth is None else depth
    count = len(source)
    batch = min(batch, count)
    rows: list[Tensor] = []
    names: list[str] = []
    lost: dict[str, str] = {}
    with closing(batches(source, batch=batch, start=0, stop=-(-count // batch), workers=workers)) as loader:
        for clips in loader:
            (features_bnd,) = encoder.forward_intermediates(crop_and_flip(clips.to(torch.device(device))), [block])
            rows.append(features_bnd.float().mean(dim=1).cpu())
            names += clips.names
            lost |= dict(clips.skipped)
    kept = [row for row, name in enumerate(names[:count]) if name not in lost]
    if not kept:
        raise LayerlockError(f"none of {count} videos could be decoded; the first: {next(iter(lost.items()))}")
    return Features(
        features_vd=torch.cat(rows)[kept],
        names=tuple(names[row] for row in kept),
        rejected=(*source.rejected, *lost.items()),
    )
