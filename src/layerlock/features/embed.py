"""Vectors of videos: one for each, one for each of its clips, or one for each token of a clip."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerlock.data import Batch, Source, Views, crop_and_flip, open_source
from layerlock.data.folder import FolderSource
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.features.clips import plain_clip
from layerlock.features.consecutive import ConsecutiveViews, all_windows, together
from layerlock.features.divided import led
from layerlock.features.embeddings import Embeddings, Per
from layerlock.features.read import FeatureBatch, Reader, mean_pooled, read_features
from layerlock.features.rows import Rows
from layerlock.process import keep_freed_memory, put_back
from layerlock.progress import INDEXING, Progress

LEAST_HOP = 0.001
"""seconds"""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Features of samples of a source after K blocks."""

    features: np.ndarray
    """float32 `[R, K, D]`, or `[R, K, N, D]` of every token, a memory map"""
    samples: tuple[int, ...]
    """their numbers, rising"""
    lost: Mapping[str, str]
    """what could not be decoded, by name, and why"""


def embed_videos(
    encoder: FrozenEncoder,
    data: str,
    *,
    root: str | None = None,
    per: Per = "video",
    hop: float | None = None,
    depth: int | Sequence[int],
    folder: Path | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
) -> Embeddings:
    """Features of the videos of `data`, where a list's paths begin at `root`, of an encoder that is on `device`.

    `folder` is where the disk has room for them, twice (None: once, where the system has its temporary files). Raises
    LayerlockError for unusable data or disks, and for numbers and depths that cannot be. Of several processes of a job
    the first one has them all, the others have no rows.
    """
    if batch < 1:
        raise LayerlockError(f"batch: {batch} is not positive")
    if hop is not None and per != "clip":
        raise LayerlockError(f"hop: there is one clip a video; give it with --per clip, not with {per}")
    if hop is not None and not LEAST_HOP <= hop < float("inf"):
        raise LayerlockError(f"hop: {hop} is not a number of seconds from {LEAST_HOP} on")
    depths = [depth] if isinstance(depth, int) else list(depth)
    if not depths or not all(0 <= block <= encoder.depth for block in depths):
        raise LayerlockError(f"depth: the encoder has blocks 0 to {encoder.depth}, not {depths}")
    if data == "synthetic":
        raise LayerlockError(
            "the synthetic world has no end: write videos of it with `layerlock synth` and embed those"
        )
    with Progress(INDEXING) as progress:
        source = open_source(data, plain_clip(encoder.clip), seed=0, root=root, workers=workers, progress=progress)
    device = torch.device(device)
    keep_freed_memory(device)

    def collected() -> Embeddings:
        return _collected(encoder, source, per, hop, depth, folder, batch, workers, device)

    return led({encoder.name: encoder}, device, collected, tells=Embeddings.without_rows)


def _collected(
    encoder: FrozenEncoder,
    source: Source,
    per: Per,
    hop: float | None,
    depth: int | Sequence[int],
    folder: Path | None,
    batch: int,
    workers: int,
    device: torch.device,
) -> Embeddings:
    views, lost = _consecutive(source, hop, batch, workers) if per == "clip" else (Views(source), {})
    with Progress("batches of clips") as progress:
        found = embed_source(
            encoder,
            views,
            depths=[depth] if isinstance(depth, int) else depth,
            form=_every_token if per == "token" else mean_pooled,
            without=views.fillers if isinstance(views, ConsecutiveViews) else (),
            folder=folder,
            batch=batch,
            workers=workers,
            device=device,
            progress=progress,
        )
    features = found.features[:, 0] if isinstance(depth, int) else found.features
    rejected = (*source.rejected, *lost.items(), *found.lost.items())
    if not isinstance(views, ConsecutiveViews):
        return Embeddings(
            features=features,
            files=tuple(map(views.name, found.samples)),
            rejected=rejected,
            position=np.array(list(np.ndindex(encoder.grid))) if per == "token" else None,
        )
    videos, video_r = np.unique([views.video(row) for row in found.samples], return_inverse=True)
    window_r = [window for row in found.samples if (window := views.window(row))]
    return Embeddings(
        features=features,
        files=tuple(source.video_name(video) for video in videos.tolist()),
        rejected=rejected,
        video=video_r,
        begin=np.array([window.begin for window in window_r]),
        end=np.array([window.end for window in window_r]),
    )


def _every_token(features_bnd: Tensor) -> Tensor:
    """All tokens, float32 `[B, N, D]`, on the CPU."""
    return features_bnd.float().cpu()


def _consecutive(
    source: Source, hop: float | None, batch: int, workers: int
) -> tuple[ConsecutiveViews, dict[str, str]]:
    """The clips of a source one after the other, and why which videos have none."""
    if not isinstance(source, FolderSource):
        raise TypeError(f"a source without times: {type(source).__name__}")
    with Progress("reading the times of frames") as progress:
        windows_of, lost = all_windows(source, hop, workers=workers, progress=progress)
    if not windows_of:
        raise _nothing_left(len(source), lost)
    return ConsecutiveViews(source, windows_of, together([len(own) for own in windows_of.values()], batch)), lost


@put_back()
def embed_source(
    encoder: FrozenEncoder,
    views: Views,
    *,
    depths: Sequence[int],
    form: Callable[[Tensor], Tensor] = mean_pooled,
    without: Collection[int] = (),
    folder: Path | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str | torch.device = "cpu",
    each: Callable[[FeatureBatch], None] | None = None,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Embedded:
    """Features, in `form`, of every sample of `views` but those in `without`; `each` is shown every batch, and
    `progress` told how many are done, of how many.

    Those that cannot be decoded are left out and listed. Raises LayerlockError where none is left.
    """
    device, total = torch.device(device), len(views)
    keep_freed_memory(device)
    places = [(encoder.name, depth) for depth in depths]
    samples, lost = list[int](), dict[str, str]()

    reader, wanted = Reader({encoder.name: encoder}, places, form), _Wanted(total, frozenset(without))
    stream = read_features(
        views,
        reader,
        batch=min(batch, total),
        device=device,
        workers=workers,
        see=wanted.seen,
        pixels=each is not None,
    )
    with closing(stream), Rows(folder, total - len(without)) as rows:
        for done, read in enumerate(stream, 1):
            skipped, indices = dict(read.clips.skipped), wanted.indices(read.clips)
            kept = [row for row, index in enumerate(indices) if views.name(index) not in skipped]
            rows.append(torch.stack([read.features[place] for place in places], dim=1)[kept])
            samples += [indices[row] for row in kept]
            lost |= skipped
            if each is not None:
                each(read)
            progress(done, -(-total // min(batch, total)))
        if not samples:
            raise _nothing_left(len(views.numbers), lost)
        return Embedded(features=rows.mapped(), samples=tuple(samples), lost=lost)


@dataclass(frozen=True)
class _Wanted:
    """Which samples have features: the last batch is filled up with samples that were there before."""

    total: int
    without: Collection[int]

    def indices(self, clips: Batch) -> list[int]:
        """Those of a batch."""
        return [index for index in clips.index_b.tolist() if index < self.total and index not in self.without]

    def seen(self, clips: Batch) -> Tensor:
        """What the encoder is shown of a batch."""
        video_btchw, first = crop_and_flip(clips), int(clips.index_b[0])
        rows = [index - first for index in self.indices(clips)]
        return video_btchw if len(rows) == len(clips) else video_btchw[rows]


def _nothing_left(videos: int, lost: Mapping[str, str]) -> LayerlockError:
    return LayerlockError(f"none of {videos} videos could be decoded; the first: {next(iter(lost.items()))}")
