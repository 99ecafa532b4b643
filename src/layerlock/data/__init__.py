"""Video in: sources of clips (the synthetic world, a folder of files), the loader, crop and flip."""

from __future__ import annotations

from layerlock.data.augment import crop_and_flip, crop_and_flip_depth
from layerlock.data.clips import Batch, ClipConfig, Sample, Source, collate
from layerlock.data.loader import batches
from layerlock.data.views import Views

__all__ = [
    "Batch",
    "ClipConfig",
    "Sample",
    "Source",
    "Views",
    "batches",
    "collate",
    "crop_and_flip",
    "crop_and_flip_depth",
    "open_source",
]


def open_source(data: str, clip: ClipConfig, seed: int, *, workers: int | None = None) -> Source:
    """The source named by `data`: "synthetic", or the path of a folder (or file) of videos.

    A folder is looked through first, with `workers` processes (None: one for each processor). Raises LayerlockError
    when nothing in it can be used. The files that cannot be used are in the source's `rejected`, as (path, reason).
    """
    if data == "synthetic":
        from layerlock.data.synthetic import SyntheticSource

        return SyntheticSource(clip=clip, seed=seed)
    from layerlock.data.folder import FolderSource
    from layerlock.data.index import build_index

    return FolderSource(build_index(data, workers), clip, seed)
