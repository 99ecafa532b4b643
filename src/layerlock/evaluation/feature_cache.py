"""Features of clips that are always the same, computed once and kept on the disk, for this training and later ones.

In the user's cache folder, a folder for each (encoder, block, clips, task): `features.npy`, and `done` when all are
there. bfloat16 is kept as the 16-bit integers of the same bits, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerlock.data import batches, crop_and_flip
from layerlock.data.index.cache import cache_folder
from layerlock.data.order import video_at
from layerlock.errors import LayerlockError
from layerlock.evaluation.clips import SpreadViews
from layerlock.evaluation.frozen import fingerprint
from layerlock.evaluation.opened import Opened
from layerlock.evaluation.readouts import Place, Reader
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.training import Step, Stream

SPARE = 0.9
"""share of the free disk that features may take"""


class Array:
    """Rows of one tensor on the disk, `[V, ...]`, in a folder of their own."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self._file: np.memmap | None = None

    @property
    def done(self) -> bool:
        """Whether all rows are there."""
        return (self.folder / "done").exists()

    def put(self, start: int, x: Tensor) -> None:
        """Writes rows from `start` on."""
        x = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).cpu()
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            kind = x.numpy().dtype
            shape = (self.rows, *x.shape[1:])
            self._file = np.lib.format.open_memmap(self.folder / "rows.npy", mode="w+", dtype=kind, shape=shape)
        stop = min(self.rows, start + len(x))
        self._file[start:stop] = x[: stop - start].numpy()

    def finish(self) -> None:
        """Says that all rows are there."""
        if self._file is not None:
            self._file.flush()
        (self.folder / "done").write_text("")

    def take(self, rows: list[int], dtype: torch.dtype | None = None) -> Tensor:
        """Rows, as they were put; int16 as `dtype` where that is given."""
        if self._file is None:
            try:
                self._file = np.load(self.folder / "rows.npy", mmap_mode="r")
            except (OSError, ValueError) as error:
                raise LayerlockError(f"{self.folder}: damaged features ({error}); remove the folder") from None
        found = torch.from_numpy(self._file[rows])
        return found.view(torch.bfloat16) if found.dtype == torch.int16 else found


def cached_stream(opened: Opened, sweep: Sweep, views: SpreadViews, reader: Reader, skipped: dict[str, str]) -> Stream:
    """The batches of `decoded_stream` over `RepeatedViews`, from features on the disk; missing ones are made first."""
    root = cache_folder() / "features"
    arrays: dict[Place | str, Array] = {
        place: Array(root / _key(opened, views, place), len(views)) for place in reader.places
    }
    arrays["target"] = Array(root / _key(opened, views, None), len(views))
    if not all(array.done for array in arrays.values()):
        _fill(opened, sweep, views, reader, arrays, skipped)
    config, device, count = opened.config, opened.device, len(views)

    def stream(start: int) -> Generator[Step]:
        for step in range(start, config.steps):
            first = step * config.batch
            rows = [video_at(index, count, config.seed) for index in range(first, first + config.batch)]
            features = {place: arrays[place].take(rows).to(device) for place in reader.places}
            yield features, arrays["target"].take(rows).to(device)

    return stream


def _key(opened: Opened, views: SpreadViews, place: Place | None) -> str:
    """A folder's name: what its rows depend on."""
    facts = [views.source.fingerprint, repr(views.clip), repr(views.folder.stretches), opened.config.task]
    if place is None:
        facts += [repr(views.folder.index.labels)]
    else:
        encoder = opened.encoders[place[0]]
        facts += [fingerprint(encoder), str(place[1]), opened.config.precision, str(opened.device)]
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=12).hexdigest()


def _fill(
    opened: Opened,
    sweep: Sweep,
    views: SpreadViews,
    reader: Reader,
    arrays: dict[Place | str, Array],
    skipped: dict[str, str],
) -> None:
    size = opened.config.batch
    count = -(-len(views) // size)
    loader = batches(views, batch=size, start=0, stop=count, workers=opened.config.workers)
    with opened.progress("computing features") as progress, closing(loader):
        for done, batch in enumerate(loader):
            skipped.update(batch.skipped)
            clips = batch.to(opened.device)
            found: dict[Place | str, Tensor] = dict(reader.read(crop_and_flip(clips)).items())
            found["target"] = sweep.task.target(clips)
            if done == 0:
                _check_room(next(iter(arrays.values())).folder.parent, found, len(views))
            for name, x in found.items():
                arrays[name].put(done * size, x)
            progress(done + 1, count)
    for array in arrays.values():
        array.finish()


def _check_room(root: Path, found: dict[Place | str, Tensor], rows: int) -> None:
    """LayerlockError where the features will not fit on the disk."""
    root.mkdir(parents=True, exist_ok=True)
    needed = sum(rows * x[0].numel() * x.element_size() for x in found.values())
    free = shutil.disk_usage(root).free
    if needed > SPARE * free:
        raise LayerlockError(
            f"cache: the features take {needed / 1e9:.1f} GB and {root} has {free / 1e9:.1f} GB left; ask for fewer "
            "--depths, or leave --cache away"
        )
