"""Figures and times between two log lines; figures stay on their device, so that a step does not wait for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from layerlock import exchange


class Meter:
    """Figures by name, one value per step since the last log line: losses, their shares of the objective, the norm of
    the gradients.
    """

    def __init__(self, pending: Mapping[str, Tensor] | None = None) -> None:
        self._values: dict[str, list[Tensor]] = {
            name: list(values.unbind()) for name, values in (pending or {}).items()
        }
        self._averaged = {name: len(values) for name, values in self._values.items()}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """The figures of one step."""
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def pending(self) -> dict[str, Tensor]:
        """All values not yet logged, `[steps]` by name, as means over the processes of the job."""
        stacked = {name: torch.stack(values) for name, values in self._values.items() if values}
        new = [values[self._averaged.get(name, 0) :] for name, values in stacked.items()]
        exchange.average([values for values in new if len(values)])
        self._values = {name: list(values.unbind()) for name, values in stacked.items()}
        self._averaged = {name: len(values) for name, values in stacked.items()}
        return stacked

    def first_bad(self) -> tuple[int, str] | None:
        """How many steps ago (0: the last one) a figure was first not finite, and which; None where all are. Of several
        figures of one step it is the one that was added first.
        """
        first: tuple[int, str] | None = None
        for name, values in self.pending().items():
            bad = (~values.isfinite()).nonzero()
            if len(bad) and (first is None or len(values) - 1 - int(bad[0]) > first[0]):
                first = len(values) - 1 - int(bad[0]), name
        return first

    def drain(self) -> dict[str, float]:
        """Means by name since the last drain."""
        means = {name: float(values.double().mean()) for name, values in self.pending().items()}
        self._values.clear()
        self._averaged.clear()
        return means


def in_words(line: Mapping[str, Any]) -> str:
    """The figures of a log line, for people."""
    timing = line["timing"]
    loss = " ".join(f"{name} {value:.4f}" for name, value in line["losses"].items())
    speed = f"{timing['clips_per_s']:.0f} clips/s  wait {timing['data_wait']:.0%}  left {timing['seconds_left']:.0f} s"
    return f"frozen {line['frozen']} -> {line['targets']}  loss {loss}  {speed}"


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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within takes no time."""
        begun = time.perf_counter()
        yield
        self._since += time.perf_counter() - begun

    def figures(self, clips_left: int) -> dict[str, float]:
        """Clips a second, the share of time that was waited, seconds until the end; and starts anew."""
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        rate = self.clips / elapsed
        figures = {
            "clips_per_s": rate,
            "data_wait": self._waited / elapsed,
            "seconds_left": clips_left / max(rate, 1e-9),
        }
        self._restart()
        return figures
