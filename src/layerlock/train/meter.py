"""Losses and times between two log lines; losses stay on their device, so that a step does not wait for its figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Meter:
    """Losses by target name, one value per step since the last log line."""

    def __init__(self, pending: Mapping[str, Tensor] | None = None) -> None:
        self._losses: dict[str, list[Tensor]] = {
            name: list(values.unbind()) for name, values in (pending or {}).items()
        }

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """The losses of one step."""
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value)

    def pending(self) -> dict[str, Tensor]:
        """All values not yet logged, `[steps]` by target name."""
        return {name: torch.stack(values) for name, values in self._losses.items() if values}

    def steps_since_bad(self) -> int | None:
        """How many steps ago (0: the last one) the first non-finite loss was, or None."""
        ages = []
        for values in self.pending().values():
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                ages.append(len(values) - 1 - int(bad[0]))
        return max(ages, default=None)

    def drain(self) -> dict[str, float]:
        """Mean loss by target name since the last drain."""
        means = {name: float(values.double().mean()) for name, values in self.pending().items()}
        self._losses.clear()
        return means


class Clock:
    """Clips and seconds since the last log line, and how many of the seconds were spent waiting for data."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self.clips, self._waited, self._since = 0, 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done within counts as waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def figures(self, clips_left: int) -> dict[str, float]:
        """Clips a second, the share of time that was waited, seconds until the end; and starts anew."""
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        rate = self.clips / elapsed
        found = {
            "clips_per_s": rate,
            "data_wait": self._waited / elapsed,
            "seconds_left": clips_left / max(rate, 1e-9),
        }
        self._restart()
        return found
