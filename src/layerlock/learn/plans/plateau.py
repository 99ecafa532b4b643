"""Freezing when the loss no longer falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerlock.learn.plan import Stage
from layerlock.learn.plans.freezing import ROUNDING
from layerlock.learn.plans.locking import Locking
from layerlock.learn.plans.waiting import Waiting, one_by_one, positive


@dataclass(frozen=True, kw_only=True)
class Plateau(Locking):
    """Progressive freezing whose switches come when the logged loss of the stage no longer falls.

    At each log line the mean loss of the last `lines` lines is compared with that of the `lines` before them, all of
    the stage in force; where it fell by less than a share `threshold`, `patience` lines in a row, `first` blocks
    freeze, or `jump` more, never more than `last` or than the encoder has. No stage but the last is shorter than
    `shortest` or, up to the next log line, longer than `longest`. Our own: LayerLock has its times from a schedule.
    """

    lines: int = 5
    """log lines that are averaged"""
    threshold: float = 0.01
    """a loss that falls by a smaller share of itself no longer falls"""
    patience: int = 2
    """log lines in a row at which it no longer falls"""
    shortest: float = 0.05
    """shortest stage, as a fraction of the run"""
    longest: float = 0.5
    """longest stage but the last, as a fraction of the run"""

    def problems(self) -> list[str]:
        """What is wrong with the settings, a line each."""
        problems = super().problems()
        problems += positive(self, "first", "jump", "last", "lines", "patience", "threshold")
        if not 0 <= self.shortest <= self.longest <= 1:
            problems.append(
                f"plan.shortest: {self.shortest}, plan.longest: {self.longest}, must be ascending fractions of the run"
            )
        return problems

    def build(self, steps: int, encoder_depth: int, depth: int) -> PlateauPlan:
        """The plan of a run of `steps` steps."""
        return PlateauPlan(self, one_by_one(self, self.last, encoder_depth, depth), steps)


class PlateauPlan(Waiting):
    """Stages, each until its loss no longer falls, as `Plateau` says."""

    settings: Plateau

    def __init__(self, settings: Plateau, stages: tuple[Stage, ...], steps: int) -> None:
        super().__init__(settings, stages, steps)
        self.losses: list[float] = []

    def see(self, step: int, figures: Mapping[str, Any]) -> None:
        """Remembers the loss."""
        self.losses.append(float(figures["loss"]))

    def begin(self) -> None:
        """Losses of another stage are of another target."""
        self.losses = []

    def reason(self, lasted: float, done: float) -> str:
        """That the loss no longer falls, or that the stage has lasted long enough."""
        settings, n = self.settings, self.settings.lines
        fall = None
        if len(self.losses) >= 2 * n:
            before, now = sum(self.losses[-2 * n : -n]) / n, sum(self.losses[-n:]) / n
            fall = (before - now) / abs(before) if before else 0.0
            self.flat = self.flat + 1 if fall < settings.threshold else 0
        if lasted + ROUNDING < settings.shortest:
            return ""
        if fall is not None and self.flat >= settings.patience:
            return (
                f"the loss changed by {0.0 - fall:+.2%} from {n} log lines to the next {n}; "
                f"{self.flat} lines in a row it fell by less than {settings.threshold:.2%}"
            )
        return f"it has lasted {settings.longest:.0%} of the run" if lasted + ROUNDING >= settings.longest else ""
