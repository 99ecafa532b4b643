"""Video in: sources of clips (the synthetic world, a folder of files), the loader, crop and flip."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from layerlock import together
from layerlock.data.augment import crop_and_flip, crop_and_flip_target
from layerlock.data.clips import Batch, ClipConfig, Sample, Source, collate
from layerlock.data.loader import batches, check_memory
from layerlock.data.remote import is_remote
from layerlock.data.views import Views
from layerlock.errors import LayerlockError

__all__ = [
    "Batch",
    "ClipConfig",
    "Sample",
    "Source",
    "Views",
    "batches",
    "check_memory",
    "collate",
    "crop_and_flip",
    "crop_and_flip_target",
    "open_source",
    "save_source",
    "short_name",
]


def open_source(
    data: str,
    clip: ClipConfig,
    seed: int,
    *,
    root: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    targets: Sequence[str] = (),
    clips: int = 0,
    store_bytes: int = 0,
    saved: Path | None = None,
) -> Source:
    """The source named by `data`: "synthetic", or the path of a folder of videos, a list of videos, or a video.

    The paths of a list begin at `root`, without one at the list's folder.

    The videos are indexed first, by `workers` processes (None: one for each processor); `progress` is told how many
    are done, of how many. Where `saved` is a file of `save_source`, that is what is known of them: those lost
    since then are skipped when their turn comes, and new ones are not seen; in another place they have to be the same
    videos. Raises LayerlockError when no video can be used, where they are others than the saved ones, or
    the decoder that `clip` names is not there. Those that cannot be used are in the source's `rejected`, as
    (path, reason). Of several processes of a job the first one indexes, for all.

    `targets` are the names of those that samples carry: `label`, another column of a list, or `depth`, which the
    synthetic world and folders of colour and depth pictures have. Where `clips`, the number that will be asked for, is
    worth it, and the frames of all videos fit into `store_bytes` of temporary file, decoded frames are kept there.
    """
    if data == "synthetic":
        if root is not None:
            raise LayerlockError("data_root: the synthetic world has no paths")
        from layerlock.data.synthetic import SyntheticSource

        return SyntheticSource(clip=clip, seed=seed, targets=targets)
    from layerlock.data.decode.torchcodec import check_torchcodec
    from layerlock.data.folder import MAPS, FolderSource
    from layerlock.data.index import Index, build_index
    from layerlock.data.index.saved import load_index
    from layerlock.data.store import store_for

    if clip.backend == "torchcodec":
        check_torchcodec()

    def index() -> Index:
        if saved is None or not saved.exists():
            columns = dict.fromkeys(name for name in targets if name not in MAPS)
            return build_index(data, workers, root=root, targets=columns, progress=progress)
        if not is_remote(data) and not os.path.exists(data):
            raise LayerlockError(
                f"{data}: the data are no longer there; if they were moved, give their new place with --data"
            )
        return load_index(saved, data, root)

    source = FolderSource(together.of_first(index), clip, seed, targets=targets)
    if clip.backend == "pyav":  # which is what fills the store
        openings = clips // clip.per_decode
        source.store = store_for(source.index.videos, source.read_sizes, budget=store_bytes, openings=openings)
    return source


def save_source(source: Source, data: str, path: Path, root: str | None = None) -> None:
    """Writes what is known of the videos of a source, opened as `data` and `root`; nothing of the synthetic world."""
    from layerlock.data.folder import FolderSource
    from layerlock.data.index.saved import save_index

    if isinstance(source, FolderSource):
        save_index(source.index, data, path, root)


def short_name(source: Source, name: str) -> str:
    """The name of a file of a source without the place where its data set is, which may be moved."""
    from layerlock.data.folder import FolderSource

    return name.removeprefix(os.path.join(source.index.root, "")) if isinstance(source, FolderSource) else name
