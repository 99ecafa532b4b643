"""Video in: sources of clips (the synthetic world, a folder of files), the loader, crop and flip."""

from __future__ import annotations

from collections.abc import Callable

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


def open_source(
    data: str,
    clip: ClipConfig,
    seed: int,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    clips: int = 0,
    store_bytes: int = 0,
) -> Source:
    """The source named by `data`: "synthetic", or the path of a folder of videos, a list of videos, or a video.

    The videos are looked into first, with `workers` processes (None: one for each processor); `progress` is told how
    many have been, of how many. Raises LayerlockError when none can be used. Those that cannot be used are in the
    source's `rejected`, as (path, reason).

    Where `clips`, the number that will be asked for, is worth it, and the frames of all videos fit into `store_bytes`
    of temporary file, decoded frames are kept there.
    """
    if data == "synthetic":
        from layerlock.data.synthetic import SyntheticSource

        return SyntheticSource(clip=clip, seed=seed)
    from layerlock.data.folder import FolderSource
    from layerlock.data.index import build_index
    from layerlock.data.store import store_for

    source = FolderSource(build_index(data, workers, progress=progress), clip, seed)
    if clip.backend == "pyav":  # which is what fills the store
        source.store = store_for(source.index.videos, source.read_sizes(), budget=store_bytes, clips=clips)
    return source
