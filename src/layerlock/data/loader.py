"""From a source to batches, in order, by worker processes: the same batches for any number of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from layerlock.data.clips import ATTEMPTS, Batch, Sample, Source, collate
from layerlock.data.pool import Failure, run_in_processes
from layerlock.data.ring import Ring
from layerlock.errors import LayerlockError

SAMPLE_SECONDS = 120.0
"""a worker that needs longer for a sample hangs"""

_BATCHES_AHEAD = 2


def batches(
    source: Source, *, batch: int, start: int, stop: int, workers: int, seconds: float = SAMPLE_SECONDS
) -> Generator[Batch]:
    """The batches of steps start .. stop - 1; batch s holds the global sample indices s * batch .. (s + 1) * batch - 1.

    A video whose decoder crashes, or takes longer than `seconds`, costs a worker process, which is replaced: the sample
    is made of its next candidate and names the video in `skipped`. With `workers` 0 the clips are made right here, one
    after the other, and such a video takes this process with it. Close the iterator to end the workers early. Raises
    LayerlockError when the source does, or when workers are lost on all candidates of a sample.
    """
    indices = range(start * batch, stop * batch)
    samples = _samples_here(source, indices) if workers == 0 else _samples(source, indices, workers, batch, seconds)
    try:
        for _ in range(start, stop):
            yield collate([next(samples) for _ in range(batch)], source.clip.size)
    finally:
        samples.close()


def _samples_here(source: Source, indices: range) -> Generator[Sample, None, None]:
    for index in indices:
        yield _sample_of(source, index)


def _samples(source: Source, indices: range, workers: int, batch: int, seconds: float) -> Generator[Sample, None, None]:
    """The samples of `indices`, in order; the pixels of each are there until `batch` more have been asked for."""
    ahead = _BATCHES_AHEAD * batch + workers
    clip = source.clip
    maker = _Maker(source, Ring(slots=ahead + batch, frames=clip.frames, side=clip.margin))
    results = run_in_processes(
        maker, indices, workers=workers, seconds=seconds, ahead=ahead, needs_main=_is_from_main(source)
    )
    try:
        for index, result in zip(indices, results, strict=True):
            made = _from_next_candidates(maker, index, result, seconds) if isinstance(result, Failure) else result
            if isinstance(made, _Refusal):
                raise LayerlockError(made.message)
            yield maker.ring.filled(made)
    finally:
        results.close()


def _from_next_candidates(maker: _Maker, index: int, failure: Failure, seconds: float) -> Sample | _Refusal:
    """The sample of the first candidate that costs no worker, each tried in a process of its own.

    A candidate is passed over only if it cannot be used, but where candidates that merely cannot be decoded come before
    one that crashes, they all bear the reason of the latter.
    """
    lost: list[tuple[str, str]] = []
    for attempt in range(1, ATTEMPTS):
        lost.append((maker.source.name(index, attempt - 1), failure.reason))
        (result,) = run_in_processes(
            replace(maker, attempt=attempt),
            [index],
            workers=1,
            seconds=seconds,
            needs_main=_is_from_main(maker.source),
        )
        if isinstance(result, _Refusal):
            return _Refusal(f"{result.message.rstrip()}\n{_listed(lost)}")
        if isinstance(result, Sample):
            return replace(result, skipped=(*lost, *result.skipped))
        failure = result
    return _Refusal(f"sample {index} is lost: {ATTEMPTS} workers in a row were\n{_listed(lost)}")


def _listed(lost: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  - {path}: {reason}" for path, reason in lost[:5])


@dataclass(frozen=True)
class _Refusal:
    """Carries an error's text out of a worker without the worker's traceback."""

    message: str


@dataclass(frozen=True)
class _Maker:
    """What a worker does: makes the sample of an index, leaves its pixels in the ring and hands back the rest."""

    source: Source
    ring: Ring
    attempt: int = 0

    def __call__(self, index: int) -> Sample | _Refusal:
        try:
            return self.ring.fill(_sample_of(self.source, index, self.attempt))
        except LayerlockError as error:
            return _Refusal(str(error))


def _sample_of(source: Source, index: int, attempt: int = 0) -> Sample:
    sample = source.sample(index, attempt)
    if sample.index != index:  # the ring would mix up the pixels
        raise ValueError(f"{type(source).__name__} gave sample {sample.index} for sample {index}")
    return sample


def _is_from_main(source: Source) -> bool:
    return type(source).__module__ == "__main__"
