"""Features of clips that are always the same, computed once and kept on the disk, for this training and later ones.

In the user's cache folder, a folder for each (encoder, block, clips, task): `rows.npy`, and `done` when all are
there. bfloat16 is kept as the 16-bit integers of the same bits, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from layerlock.data import batches, crop_and_flip
from layerlock.data.decode.beside import depth_path
from layerlock.data.index.cache import cache_folder, contents_of, state_of
from layerlock.data.order import video_at
from layerlock.encoders.checks import fingerprint
from layerlock.errors import LayerlockError
from layerlock.evaluation.clips import SpreadViews
from layerlock.evaluation.opened import Opened
from layerlock.evaluation.readouts import Place, Reader
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.training import Step, Stream, unusable
from layerlock.files import write_whole

SPARE = 0.9
"""share of the free disk that features may take"""


class Array:
    """Rows of one tensor on the disk, `[V, ...]`, in a folder of their own, which is there whole or not at all.

    They are made in a folder beside it, a process its own: two evaluations at once do not write into each other's.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self._making = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        self._file: np.memmap | None = None

    @property
    def done(self) -> bool:
        """Whether all rows are there."""
        return (self.folder / "done").exists()

    def put(self, start: int, x: Tensor) -> None:
        """Writes rows from `start` on."""
        x = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).cpu()
        if self._file is None:
            self._remove_left_behind()
            self._making.mkdir(parents=True)
            kind = x.numpy().dtype
            shape = (self.rows, *x.shape[1:])
            self._file = np.lib.format.open_memmap(self._making / "rows.npy", mode="w+", dtype=kind, shape=shape)
        stop = min(self.rows, start + len(x))
        self._file[start:stop] = x[: stop - start].numpy()

    def finish(self, lost: dict[str, str]) -> None:
        """Says that all rows are there, and which videos could not be decoded."""
        if self._file is not None:
            self._file.flush()
            self._file = None
        write_whole(self._making / "done", lambda part: part.write_text(json.dumps(lost)))
        if self.done:  # another evaluation was faster
            shutil.rmtree(self._making)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._making.rename(self.folder)

    def _remove_left_behind(self) -> None:
        """What a process of this machine that is no more had begun."""
        for part in self.folder.parent.glob(f"{self.folder.name}.*.part"):
            if part == self._making or not _runs(int(part.suffixes[-2][1:])):
                shutil.rmtree(part, ignore_errors=True)

    def lost(self) -> dict[str, str]:
        """Videos that could not be decoded, and why."""
        try:
            return dict(json.loads((self.folder / "done").read_text()))
        except (OSError, ValueError) as error:
            raise LayerlockError(f"{self.folder}: damaged features ({error}); remove the folder") from None

    def take(self, rows: list[int]) -> Tensor:
        """Rows, as they were put."""
        if self._file is None:
            try:
                self._file = np.load(self.folder / "rows.npy", mmap_mode="r")
            except (OSError, ValueError) as error:
                raise LayerlockError(f"{self.folder}: damaged features ({error}); remove the folder") from None
        found = torch.from_numpy(self._file[rows])
        return found.view(torch.bfloat16) if found.dtype == torch.int16 else found


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def cached_stream(opened: Opened, sweep: Sweep, views: SpreadViews, reader: Reader, skipped: dict[str, str]) -> Stream:
    """The batches of `decoded_stream` over `RepeatedViews`, from features on the disk; missing ones are made first."""
    if not isinstance(opened.ours, nn.Module):
        raise LayerlockError("cache: an encoder that is no torch module has no weights to tell its features by")
    root = cache_folder() / "features"
    arrays: dict[Place | str, Array] = {
        place: Array(root / _key(opened, views, place), len(views)) for place in reader.places
    }
    arrays["target"] = Array(root / _key(opened, views, None), len(views))
    missing = {name: array for name, array in arrays.items() if not array.done}
    if missing:
        places = [name for name in missing if name != "target"]
        settings = [setting for setting in sweep.readouts if setting.place in places]
        _fill(opened, sweep, views, Reader(opened.encoders, settings), missing)
    skipped.update(arrays["target"].lost())
    config, device, count = opened.config, opened.device, len(views)

    def stream(start: int) -> Generator[Step]:
        for step in range(start, config.steps):
            first = step * config.batch
            rows = [video_at(index, count, config.seed) for index in range(first, first + config.batch)]
            features = {place: arrays[place].take(rows).to(device) for place in reader.places}
            skipped.update(unusable(features, [views.name(row) for row in rows]))
            yield features, arrays["target"].take(rows).to(device)

    return stream


def _key(opened: Opened, views: SpreadViews, place: Place | None) -> str:
    """A folder's name: what its rows depend on."""
    facts = [views.source.fingerprint, repr(views.clip), repr(views.folder.stretches), opened.config.task]
    videos = views.folder.index.videos
    # folders of frames in two places can be alike in all that an index says of them
    facts += [f"{video.path} {contents_of(video.path)}" for video in videos]
    if place is None:
        facts += [repr(views.folder.index.labels)]
        if views.folder.with_depth:
            facts += [state_of(str(depth_path(video.path))) for video in videos]
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
) -> None:
    size, lost = opened.config.batch, dict[str, str]()
    count = -(-len(views) // size)
    loader = batches(views, batch=size, start=0, stop=count, workers=opened.config.workers)
    with opened.progress("computing features") as progress, closing(loader):
        for done, batch in enumerate(loader):
            clips = batch.to(opened.device)
            read: dict[Place | str, Tensor] = dict(reader.read(crop_and_flip(clips)).items())
            read["target"] = sweep.task.target(clips)
            found = {name: read[name] for name in arrays}
            if done == 0:
                _check_room(next(iter(arrays.values())).folder.parent, found, len(views))
            for name, x in found.items():
                arrays[name].put(done * size, x)
            lost |= dict(batch.skipped)
            progress(done + 1, count)
    for array in arrays.values():
        array.finish(lost)


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
