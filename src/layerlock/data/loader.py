"""From a source to batches, in order, by worker processes: the same batches for any number of them."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from layerlock.data.clips import ATTEMPTS, Batch, ClipConfig, Sample, Source, collate
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.ring import Facts, Ring
from layerlock.errors import LayerlockError

SAMPLE_SECONDS = 120.0
"""a worker that needs longer for a group of samples hangs"""

_BATCHES_AHEAD = 2

_BYTES_AHEAD = 2 * 1024**3
"""of video that is made before it is asked for; each map of a source takes 4 / 3 of that more"""


def batches(
    source: Source,
    *,
    batch: int,
    start: int,
    stop: int,
    workers: int,
    seconds: float = SAMPLE_SECONDS,
    rank: int = 0,
    ranks: int = 1,
) -> Generator[Batch]:
    """The batches of steps start .. stop - 1; batch s holds the global sample indices s * batch .. (s + 1) * batch - 1.

    Of each batch process `rank` of `ranks` has its share, a run of consecutive indices; all shares together are the
    batch of one process. `batch` is a multiple of `ranks * clip.per_decode`, else ValueError.

    A video whose decoder crashes, or takes longer than `seconds`, costs a worker process, which is replaced: the sample
    is made of its next candidate and names the video in `skipped`. With `workers` 0 the clips are made right here, one
    after the other, and such a video takes this process with it. Close the iterator to end the workers early. Raises
    LayerlockError when the source does, when workers are lost on all candidates of a sample, and at once for a batch
    that this machine has no memory for.
    """
    check_memory(source.clip, batch // ranks)
    together = source.clip.per_decode
    if batch % (ranks * together):
        raise ValueError(f"a batch of {batch} is not a multiple of {ranks} processes x {together} clips a decode")
    share = _Share(first=start, groups=batch // together, rank=rank, ranks=ranks)
    if workers == 0:
        yield from _batches_here(source, share, stop - start)
    else:
        yield from _batches_of_workers(source, share, stop - start, workers, seconds)


def check_memory(clip: ClipConfig, batch: int) -> None:
    """Raises LayerlockError where the pixels of one batch take more than the memory of this machine."""
    needed, there = batch * clip.bytes, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        side = clip.resize_side
        raise LayerlockError(
            f"batch: {batch:,} clips of {clip.frames:,} frames of {side:,} x {side:,} pixels take "
            f"{needed / 1e9:,.1f} GB; this machine has {there / 1e9:,.1f} GB of memory"
        )


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Which groups of samples one process makes, in order: of each batch of `groups` groups a run of `each`."""

    first: int
    groups: int
    rank: int
    ranks: int

    @property
    def each(self) -> int:
        return self.groups // self.ranks

    def group(self, place: int) -> int:
        """The group at a place of the order."""
        step, within = divmod(place, self.each)
        return (self.first + step) * self.groups + self.rank * self.each + within


def _batches_here(source: Source, share: _Share, count: int) -> Generator[Batch]:
    for step in range(count):
        places = range(step * share.each, (step + 1) * share.each)
        samples = [sample for place in places for sample in _samples_of(source, share.group(place))]
        yield collate(samples, source.clip.size)


def _batches_of_workers(source: Source, share: _Share, count: int, workers: int, seconds: float) -> Generator[Batch]:
    clip, ahead = source.clip, _groups_ahead(source.clip, share.each, workers)
    maps = [name for name, kind in source.targets.items() if kind == "map"]
    ring = Ring(slots=ahead * clip.per_decode, frames=clip.frames, side=clip.resize_side, maps=maps)
    maker = _Maker(source, share, ring)
    places = range(count * share.each)
    results = run_in_processes(
        maker, places, workers=workers, seconds=seconds, ahead=ahead, needs_main=_is_from_main(source)
    )
    try:
        for step in range(count):
            batch = share.each * clip.per_decode
            video_btchw = np.empty((batch, clip.frames, 3, clip.resize_side, clip.resize_side), np.uint8)
            samples: list[Sample] = []
            for place, result in zip(places[step * share.each :], islice(results, share.each), strict=False):
                made = _from_next_candidates(maker, place, seconds) if isinstance(result, Failure) else result
                if isinstance(made, _Refusal):
                    raise LayerlockError(made.message)
                samples += maker.taken(place, made, video_btchw[len(samples) :])
            yield collate(samples, clip.size, torch.from_numpy(video_btchw))
    finally:
        results.close()


def _groups_ahead(clip: ClipConfig, each: int, workers: int) -> int:
    """Groups that are on their way to the reader at a time, the one that it asks for among them.

    They are those of the next batches, as far as they fit into `_BYTES_AHEAD`, but one for each worker at least.
    """
    return max(workers, min(_BATCHES_AHEAD * each + workers, _BYTES_AHEAD // (clip.per_decode * clip.bytes)))


def _from_next_candidates(maker: _Maker, place: int, seconds: float) -> list[Facts] | _Refusal:
    """The samples of the first candidate that costs no worker, each tried in a process of its own.

    The first is tried once more: what a worker died of may not have been its clip. A candidate is passed over only if
    it cannot be used, but where candidates that merely cannot be decoded come before one that crashes, they all bear
    the reason of the latter.
    """
    index = maker.share.group(place) * maker.source.clip.per_decode
    lost: list[tuple[str, str]] = []
    for attempt in range(ATTEMPTS):
        (result,) = run_in_processes(
            replace(maker, attempt=attempt),
            [place],
            workers=1,
            seconds=seconds,
            needs_main=_is_from_main(maker.source),
        )
        if isinstance(result, _Refusal):
            return _Refusal(f"{result.message.rstrip()}\n{_listed(lost)}")
        if not isinstance(result, Failure):
            return [result[0] | {"skipped": (*lost, *result[0]["skipped"])}, *result[1:]]
        lost.append((maker.source.name(index, attempt), result.reason))
    return _Refusal(f"sample {index} cannot be made: {ATTEMPTS} workers in a row were lost\n{_listed(lost)}")


def _listed(lost: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  - {path}: {reason}" for path, reason in lost[:5])


@dataclass(frozen=True)
class _Refusal:
    """Carries an error's text out of a worker without the worker's traceback."""

    message: str


@dataclass(frozen=True)
class _Maker:
    """What a worker does: makes the samples of a group, leaves their pixels in the ring and hands back the rest."""

    source: Source
    share: _Share
    ring: Ring
    attempt: int = 0

    def __call__(self, place: int) -> list[Facts] | _Refusal:
        try:
            samples = _samples_of(self.source, self.share.group(place), self.attempt)
        except LayerlockError as error:
            return _Refusal(str(error))
        return [self.ring.fill(slot, sample) for slot, sample in zip(self._slots(place), samples, strict=True)]

    def taken(self, place: int, samples: list[Facts], video_btchw: np.ndarray) -> list[Sample]:
        """The samples of a group with their pixels again, which are copied to the beginning of `video_btchw`."""
        slots = self._slots(place)
        return [self.ring.take(slot, *sample) for slot, *sample in zip(slots, samples, video_btchw, strict=False)]

    def _slots(self, place: int) -> range:
        together = self.source.clip.per_decode
        return range(place * together, (place + 1) * together)


def _samples_of(source: Source, group: int, attempt: int = 0) -> list[Sample]:
    samples, together = source.samples(group, attempt), source.clip.per_decode
    indices = [sample.index for sample in samples]
    if indices != list(range(group * together, (group + 1) * together)):  # the ring would mix up the pixels
        raise ValueError(f"{type(source).__name__} gave the samples {indices} for group {group} of {together}")
    return samples


def _is_from_main(source: Source) -> bool:
    return type(source).__module__ == "__main__"
