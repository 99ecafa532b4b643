"""Losses between two log lines, kept on their device so that a step does not wait for its figures."""

from __future__ import annotations

from collections.abc import Mapping

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
