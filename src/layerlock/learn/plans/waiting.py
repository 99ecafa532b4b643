"""Plans whose stages follow each other when something measured says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from layerlock.learn.plan import Decision, Stage, SwitchLog
from layerlock.learn.plans.locking import Locking, patch_factor


class Waiting(ABC):
    """`stages` one after the other, each until there is a reason to end it, found in the log lines of the run."""

    def __init__(self, settings: Locking, stages: tuple[Stage, ...], steps: int) -> None:
        self.settings, self.stages, self.steps = settings, stages, steps
        self.number, self.since, self.flat = 0, 0, 0
        """the stage, the step at which it began, log lines in a row that speak for its end"""

    def stage(self, step: int, log: SwitchLog) -> Stage:
        """The one decided for last."""
        return log[-1].stage if log else self.stages[0]

    def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
        """The factor of a loss on patches that is kept."""
        weight = self.settings.patch_weight
        return patch_factor(self.stage(step, log), weight) if weight else {}

    def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
        """The next stage, once there is a reason to end this one."""
        if self.number + 1 == len(self.stages):
            return None
        self.see(step, figures)
        reason = self.reason((step - self.since) / self.steps, step / self.steps)
        if not reason:
            return None
        self.number, self.since, self.flat = self.number + 1, step, 0
        self.begin()
        return Decision(self.stages[self.number], reason)

    @abstractmethod
    def see(self, step: int, figures: Mapping[str, Any]) -> None:
        """Remembers a log line."""

    @abstractmethod
    def reason(self, lasted: float, done: float) -> str:
        """Why the stage, which has lasted the first fraction of the run, of which the second is done, is to end; empty
        where it is not.
        """

    @abstractmethod
    def begin(self) -> None:
        """Forgets what was of the stage before."""


def one_by_one(settings: Locking, most: int, encoder_depth: int, depth: int) -> tuple[Stage, ...]:
    """The stages that freeze `first` blocks, then `jump` more each time, up to `most` or as many as there can be."""
    most = min(most, depth if settings.freeze_decoder else encoder_depth)
    switches = [*range(min(settings.first, most), most, settings.jump), most]
    return tuple(settings.stages(switches, encoder_depth, depth))


def positive(settings: Locking, *names: str) -> list[str]:
    """Which of some fields are not positive, a line each."""
    return [f"plan.{name}: {getattr(settings, name)} is not positive" for name in names if getattr(settings, name) <= 0]
