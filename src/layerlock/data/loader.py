"""From a source to batches, in order, by worker processes: the same batches for any number of them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from layerlock.data.clips import Batch, Sample, Source, collate
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.ring import Ring
from layerlock.errors import LayerlockError

SAMPLE_SECONDS = 120.0
"""a worker that needs longer for a sample hangs"""

_BATCHES_AHEAD = 2


def batches(source: Source, *, batch: int, start: int, stop: int, workers: int) -> Generator[Batch]:
    """The batches of steps start .. stop - 1; batch s holds the global sample indices s * batch .. (s + 1) * batch - 1.

    With `workers` 0 the clips are made right here, one after the other. Close the iterator to end the workers early.
    Raises LayerlockError when the source does, or when a worker dies or hangs.
    """
    indices = range(start * batch, stop * batch)
    samples = _samples_here(source, indices) if workers == 0 else _samples(source, indices, workers, batch)
    try:
        for _ in range(start, stop):
            yield collate([next(samples) for _ in range(batch)], source.clip.size)
    finally:
        samples.close()


def _samples_here(source: Source, indices: range) -> Generator[Sample, None, None]:
    yield from map(source.sample, indices)


def _samples(source: Source, indices: range, workers: int, batch: int) -> Generator[Sample, None, None]:
    """The samples of `indices`, in order; the pixels of each are there until `batch` more have been asked for."""
    ahead = _BATCHES_AHEAD * batch + workers
    clip = source.clip
    ring = Ring(slots=ahead + batch, frames=clip.frames, side=clip.margin)
    results = run_in_processes(
        _Maker(source, ring),
        indices,
        workers=workers,
        seconds=SAMPLE_SECONDS,
        ahead=ahead,
        needs_main=_is_from_main(source),
    )
    try:
        for index, result in zip(indices, results, strict=True):
            if isinstance(result, Failure):
                raise LayerlockError(f"sample {index} is lost: {result.reason}")
            if isinstance(result, _Refusal):
                raise LayerlockError(result.message)
            yield ring.filled(result)
    finally:
        results.close()


@dataclass(frozen=True)
class _Refusal:
    """Carries an error's text out of a worker without the worker's traceback."""

    message: str


@dataclass(frozen=True)
class _Maker:
    """What a worker does: makes the sample of an index, leaves its pixels in the ring and hands back the rest."""

    source: Source
    ring: Ring

    def __call__(self, index: int) -> Sample | _Refusal:
        try:
            return self.ring.fill(self.source.sample(index))
        except LayerlockError as error:
            return _Refusal(str(error))


def _is_from_main(source: Source) -> bool:
    return type(source).__module__ == "__main__"
