"""Features of clips that are always the same, computed once and kept on the disk, for this training and later ones.

In the user's cache folder, an array for each (encoder, block, clips) and for each target of the clips. bfloat16 is
kept as the 16-bit integers of the same bits, so that nothing is lost. diskcache, weighed for this, keeps values as
blobs in a database, whose locks shared storage may not have, and not as arrays that are read by pages.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerlock.data import Batch
from layerlock.data.index.cache import cache_folder, contents_of, file_of
from layerlock.encoders import FrozenEncoder
from layerlock.encoders.checks import fingerprint
from layerlock.errors import LayerlockError
from layerlock.features.clips import SpreadViews
from layerlock.features.read import Place, Reader, read_features
from layerlock.features.store import Array, make_room

SPARE = 0.9
"""share of the free disk that features may take"""
TARGET = "target"
Name = Place | str
"""what an array holds: the features of a place, or `TARGET`"""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """Features and target of every clip of `views`, by its number, on the disk."""

    views: SpreadViews
    arrays: Mapping[Name, Array]

    def take(self, rows: Sequence[int], device: torch.device) -> tuple[dict[Place, Tensor], Tensor]:
        """Features of some clips, `[B, N, D]` by place, and their target `[B, ...]`."""
        taken = {name: array.take(list(rows)).to(device) for name, array in self.arrays.items()}
        return {name: x for name, x in taken.items() if not isinstance(name, str)}, taken[TARGET]

    def lost(self) -> dict[str, str]:
        """Videos that could not be decoded, and why."""
        return self.arrays[TARGET].lost()


def cached_features(
    views: SpreadViews,
    encoders: Mapping[str, FrozenEncoder],
    places: Sequence[Place],
    target_of: Callable[[Batch], Tensor],
    *,
    target_key: str,
    precision: str,
    device: torch.device,
    batch: int,
    workers: int,
    most_gigabytes: float,
    progress: Callable[[int, int], None],
) -> Cached:
    """The features of all clips of `views` at `places`, and their targets; those that are missing are made first.

    `target_key` says what `target_of` makes of the targets of the clips, `precision` what the encoders compute in.
    Raises LayerlockError where the features take more than `most_gigabytes` or the disk has.
    """
    root, clips = cache_folder() / "features", _clips(views)
    keys: dict[Name, Sequence[str]] = {
        (name, block): (*clips, fingerprint(encoders[name]), str(block), precision, str(device))
        for name, block in places
    }
    keys[TARGET] = (*clips, views.folder.target_fingerprint, target_key)
    arrays = {name: Array(root / _digest(facts), len(views)) for name, facts in keys.items()}
    missing = {name: array for name, array in arrays.items() if not array.use()}
    if missing:
        reader = Reader(encoders, [name for name in missing if not isinstance(name, str)])
        lost: dict[str, str] = {}
        count = -(-len(views) // batch)
        with closing(read_features(views, reader, batch=batch, device=device, workers=workers)) as stream:
            for done, read in enumerate(stream):
                made: dict[Name, Tensor] = dict(read.features.items())
                made[TARGET] = target_of(read.clips)
                if done == 0:
                    _make_room(root, [made[name] for name in missing], len(views), most_gigabytes)
                for name, array in missing.items():
                    array.put(done * batch, made[name])
                lost |= dict(read.clips.skipped)
                progress(done + 1, count)
        for array in missing.values():
            array.finish(lost)
            array.use()
    return Cached(views=views, arrays=arrays)


def _clips(views: SpreadViews) -> list[str]:
    """What the pictures of the clips depend on; a clip is black where it lacks a map that it is read with."""
    facts = [views.source.fingerprint, repr(views.clip), repr(views.folder.stretches)]
    # folders of frames in two places can be alike in all that an index says of them
    facts += [f"{video.path} {contents_of(file_of(video))}" for video in views.folder.index.videos]
    return [*facts, views.folder.target_fingerprint] if "map" in views.targets.values() else facts


def _digest(facts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(facts).encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _make_room(root: Path, arrays: Sequence[Tensor], rows: int, most_gigabytes: float) -> None:
    """Removes features that have not been used for long. LayerlockError where these take more than is allowed, or than
    the disk has.
    """
    root.mkdir(parents=True, exist_ok=True)
    needed = sum(rows * x[0].numel() * x.element_size() for x in arrays)
    wish = "use fewer --depths, or no --cache"
    if needed > most_gigabytes * 1e9:
        raise LayerlockError(
            f"cache: the features take {needed / 1e9:.1f} GB, more than --cache-gb {most_gigabytes:g}; {wish}"
        )
    make_room(root, needed, int(most_gigabytes * 1e9))
    free = shutil.disk_usage(root).free
    if needed > SPARE * free:
        raise LayerlockError(
            f"cache: the features take {needed / 1e9:.1f} GB and {root} has {free / 1e9:.1f} GB left; {wish}"
        )
