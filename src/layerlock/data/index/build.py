"""Which videos of a data set are usable, found out by decoding the start of each in a pool of processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property

from layerlock.data.decode import probe
from layerlock.data.decode.images import folder_of
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.data.index.cache import IndexCache, Stamp, stamp_of
from layerlock.data.index.columns import Wanted
from layerlock.data.index.layouts import list_videos
from layerlock.data.index.listing import Listing, NothingUsable
from layerlock.data.index.shards.find import are_shards
from layerlock.data.index.shards.table import Videos
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.targets import Column, Labelled

PROBE_SECONDS = 240.0
"""a file whose probe takes longer is rejected"""

Progress = Callable[[int, int], None]
"""told how many videos have been indexed, of how many"""


@dataclass(frozen=True, kw_only=True)
class Index(Labelled):
    """What a data set holds."""

    root: str
    """absolute path of the folder that the videos are below, where a list does not say otherwise"""
    layout: str
    """what the data set was recognized as, in words"""
    videos: Sequence[VideoInfo]
    """usable; those of a folder sorted by path, those of a list in its order, those of shards in theirs"""
    targets: Mapping[str, Column] = field(default_factory=dict)
    """what is known of each video, by name: `label` and columns of the list"""
    groups: Sequence[str] = ()
    """what each video belongs to (recording, room, subject), "" for itself alone; () where nothing says so"""
    rejected: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what looks like a video, or is listed, and cannot be used"""

    def __len__(self) -> int:
        return len(self.videos)

    @cached_property
    def group_numbers(self) -> tuple[int, ...]:
        """What each video belongs to, as a number; one of its own where nothing is known."""
        names = [group or video.path for group, video in zip(self.groups or [""] * len(self), self.videos, strict=True)]
        number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return tuple(number_of[name] for name in names)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the usable videos: their places below the root, what they are, their order."""
        if isinstance(self.videos, Videos):
            return self.videos.table.digest
        total = hashlib.blake2b(digest_size=8)
        for video in self.videos:
            place = video.path.removeprefix(self.root)
            facts = (video.frames, video.fps, video.height, video.width, video.codec, video.rotation, video.bytes)
            total.update(f"{place}\0{facts}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    def spread(self, most: int | None) -> Index:
        """At most so many of the videos, evenly spread, since folders are sorted by class; None: all."""
        if most is None or most >= len(self):
            return self
        return self.take([row * len(self) // most for row in range(most)])

    def take(self, rows: Sequence[int]) -> Index:
        """The videos at some positions; nothing of what was rejected."""
        return replace(
            self,
            videos=tuple(self.videos[row] for row in rows),
            targets={name: column.take(rows) for name, column in self.targets.items()},
            groups=tuple(self.groups[row] for row in rows) if self.groups else (),
            rejected=(),
        )


def build_index(
    data: str | os.PathLike[str] | Listing,
    workers: int | None = None,
    *,
    root: str | None = None,
    targets: Wanted | None = None,
    only: Sequence[int] | None = None,
    progress: Progress | None = None,
    cache: bool = True,
) -> Index:
    """Look into every video of a data set in `workers` processes (None: one for each processor).

    The paths of a list begin at `root`, without one at the list's folder. `targets` are columns of a list to read, each
    as a class, as a float or, where its kind is None, as what its values are; `label` and columns with a kind in their
    name are read without being asked for. `only` are the positions in the listing that
    are wanted; None is all. What earlier calls found out about files that have not changed since is used where `cache`
    says so. Raises LayerlockError as `list_videos` does, and when none of the videos can be used.
    """
    if not isinstance(data, Listing) and are_shards(os.fspath(data)):
        from layerlock.data.index.shards.build import build_shards

        return build_shards(os.fspath(data), workers, root=root, wanted=targets, progress=progress, cache=cache)
    listing = data if isinstance(data, Listing) else list_videos(data, root, targets)
    chosen = range(len(listing)) if only is None else only
    with closing(IndexCache(listing.data if cache else None)) as known:
        verdicts = _index_videos(listing, chosen, workers, known, progress or (lambda done, count: None))
        known.tidy(listing.paths)
    usable = [(n, video) for n in chosen if isinstance(video := verdicts[n], VideoInfo)]
    rejected = [(listing.paths[n], reason) for n in chosen if isinstance(reason := verdicts[n], str)]
    rejected += [entry for _, video in usable for entry in _left_out(video)]
    if only is None:
        rejected = [*listing.rejected, *rejected]
    if not usable:
        raise NothingUsable(listing.data, rejected, hint=listing.hint)
    rows = [n for n, _ in usable]
    return Index(
        root=listing.root,
        layout=listing.layout,
        videos=tuple(video for _, video in usable),
        targets={name: column.take(rows) for name, column in listing.targets.items()},
        groups=tuple(listing.groups[n] for n in rows) if listing.groups else (),
        rejected=tuple(rejected),
    )


def _left_out(video: VideoInfo) -> Iterator[tuple[str, str]]:
    for name in video.left_out:
        yield os.path.join(folder_of(video.path), name), "it is left out: a single picture beside a series of frames"


def _index_videos(
    listing: Listing, chosen: Sequence[int], workers: int | None, cache: IndexCache, progress: Progress
) -> dict[int, VideoInfo | str]:
    """What is in each of the chosen videos, or why it cannot be used, by its position."""
    verdicts: dict[int, VideoInfo | str] = {}
    unknown: dict[int, Stamp] = {}
    for position in chosen:
        stamp = _stamp_or_reason(listing.paths[position], listing.place(position))
        known = stamp if isinstance(stamp, str) else cache.get(listing.paths[position], stamp)
        if known is not None:
            verdicts[position] = known
        elif isinstance(stamp, Stamp):
            unknown[position] = stamp
    progress(len(verdicts), len(chosen))
    paths = [listing.paths[position] for position in unknown]
    with closing(run_in_processes(_probe, paths, workers=workers, seconds=PROBE_SECONDS)) as probed:
        for (position, stamp), result in zip(unknown.items(), probed, strict=True):
            if isinstance(result, Failure):
                verdicts[position] = f"decoding fails: {result.reason}"
            else:
                verdicts[position] = result.verdict
                mendable = stamp.folder and isinstance(result.verdict, str)  # in place, which leaves the stamp as it is
                if result.lasting and not mendable:
                    cache.add(listing.paths[position], stamp, result.verdict)
            progress(len(verdicts), len(chosen))
    return verdicts


def _stamp_or_reason(path: str, place: str) -> Stamp | str:
    """The stamp of a file, or why it has none."""
    try:
        return stamp_of(path)
    except FileNotFoundError:
        return f"no such file; listed in {place}" if place else "it cannot be opened: no such file"
    except (OSError, ValueError) as error:  # ValueError: the name holds what no name can hold
        return f"it cannot be opened: {getattr(error, 'strerror', None) or error}"


@dataclass(frozen=True)
class _Probed:
    """What is in a file, or why it cannot be used, and whether that is the file's doing alone."""

    verdict: VideoInfo | str
    lasting: bool


def _probe(path: str) -> _Probed:
    try:
        return _Probed(probe(path), lasting=True)
    except UnreadableVideo as error:
        return _Probed(error.reason, lasting=not isinstance(error.__cause__, OSError | MemoryError))
