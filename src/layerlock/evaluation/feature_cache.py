"""Features of clips that are always the same, computed once and kept on the disk, for this training and later ones.

In the user's cache folder, an array for each (encoder, block, clips, task). bfloat16 is kept as the 16-bit integers of
the same bits, so that nothing is lost. diskcache, weighed for this, keeps values as blobs in a database, whose locks
shared storage may not have, and not as arrays that are read by pages.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from torch import Tensor, nn

from layerlock.data import batches, crop_and_flip
from layerlock.data.decode.beside import depth_path
from layerlock.data.index.cache import cache_folder, contents_of, state_of
from layerlock.data.order import video_at
from layerlock.encoders.checks import fingerprint
from layerlock.errors import LayerlockError
from layerlock.evaluation.clips import SpreadViews
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.feature_store import Array, make_room
from layerlock.evaluation.opened import Opened
from layerlock.evaluation.readouts import Place, Reader
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.training import Step, Stream, unusable

SPARE = 0.9
"""share of the free disk that features may take"""


def cached_stream(opened: Opened, sweep: Sweep, views: SpreadViews, reader: Reader, skipped: dict[str, str]) -> Stream:
    """The batches of `decoded_stream` over `RepeatedViews`, from features on the disk; missing ones are made first."""
    if not isinstance(opened.ours, nn.Module):
        raise LayerlockError("cache: an encoder that is no torch module has no weights to tell its features by")
    root = cache_folder() / "features"
    arrays: dict[Place | str, Array] = {
        place: Array(root / _key(opened, views, place), len(views)) for place in reader.places
    }
    arrays["target"] = Array(root / _key(opened, views, None), len(views))
    missing = {name: array for name, array in arrays.items() if not array.use()}
    if missing:
        places = [name for name in missing if name != "target"]
        settings = [setting for setting in sweep.readouts if setting.place in places]
        _fill(opened, sweep, views, Reader(opened.encoders, settings), missing)
        for array in missing.values():
            array.use()
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
                _make_room(opened.config, next(iter(arrays.values())).folder.parent, found, len(views))
            for name, x in found.items():
                arrays[name].put(done * size, x)
            lost |= dict(batch.skipped)
            progress(done + 1, count)
    for array in arrays.values():
        array.finish(lost)


def _make_room(config: EvaluateConfig, root: Path, found: dict[Place | str, Tensor], rows: int) -> None:
    """Removes features that have not been used for long. LayerlockError where these take more than is allowed, or than
    the disk has.
    """
    root.mkdir(parents=True, exist_ok=True)
    needed = sum(rows * x[0].numel() * x.element_size() for x in found.values())
    wish = "ask for fewer --depths, or leave --cache away"
    if needed > config.cache_gb * 1e9:
        raise LayerlockError(
            f"cache: the features take {needed / 1e9:.1f} GB, more than --cache-gb {config.cache_gb:g}; {wish}"
        )
    make_room(root, needed, int(config.cache_gb * 1e9))
    free = shutil.disk_usage(root).free
    if needed > SPARE * free:
        raise LayerlockError(
            f"cache: the features take {needed / 1e9:.1f} GB and {root} has {free / 1e9:.1f} GB left; {wish}"
        )
