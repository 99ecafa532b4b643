"""Rate and length of a video from the times of its frames."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NEAR = 0.45
"""of a frame: a time this far from its place at an even rate is rounded"""

_GAPS = 0.1
"""gaps for a frame from which on the rate varies; with fewer, frames of an even rate are missing"""

_USUAL_FPS = 25.0
"""where nothing tells"""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How many frames, how fast, how long."""

    frames: int
    fps: float
    seconds: float
    missing: tuple[int, ...] = ()
    """places at an even rate that no frame has, rising"""
    times: tuple[float, ...] = ()
    """when each frame is shown, in seconds from the first one; () where the rate is even"""


def timed(time_n: Sequence[float], rates: Sequence[float]) -> Timing:
    """Of frames shown at these times (seconds, rising, the first is 0); `rates` are what the container says.

    The rate is one of these where it fits every frame, else what fits, else the average.
    """
    count = len(time_n)
    if count == 1:
        return _even(1, next(iter(rates), _USUAL_FPS))
    usual = statistics.median(b - a for a, b in itertools.pairwise(time_n))
    for fps in (*rates, (count - 1) / time_n[-1], 1 / usual):
        places = [round(time * fps) for time in time_n]
        if any(abs(time * fps - place) > _NEAR for time, place in zip(time_n, places, strict=True)):
            continue
        steps = [b - a for a, b in itertools.pairwise(places)]
        if min(steps) == 1 and sum(step > 1 for step in steps) <= _GAPS * count:
            missing = sorted(set(range(places[-1])) - set(places)) if places[-1] < 2 * count else None
            if missing is not None:
                return _even(count, fps, tuple(missing))
    seconds = time_n[-1] + usual
    return Timing(frames=count, fps=count / seconds, seconds=seconds, times=tuple(time_n))


def counted(time_n: Sequence[float | None], rates: Sequence[float]) -> Timing:
    """The same of frames in the decoder's order. Where their times do not rise, that order holds, at an even rate."""
    known = sorted({time for time in time_n if time is not None})
    if not known:
        return _even(len(time_n), next(iter(rates), _USUAL_FPS))
    timing = timed([time - known[0] for time in known], rates)
    if known == list(time_n):
        return timing
    fps = next(iter(rates), timing.fps) if timing.times else timing.fps
    return _even(len(time_n), fps)


def _even(count: int, fps: float, missing: tuple[int, ...] = ()) -> Timing:
    return Timing(frames=count, fps=fps, seconds=count / fps, missing=missing)
