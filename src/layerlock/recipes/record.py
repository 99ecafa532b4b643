"""What is to be known of a setting, and the units that the papers' tables are printed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from layerlock.config import Config


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A config, and what people should know of it."""

    config: Config
    about: str
    """one line: what is trained"""
    source: str = ""
    """paper, table and row; empty for settings of our own"""
    reaches: str = ""
    """the figures that the source prints for it; ScanNet's are absolute relative errors"""
    saves: str = ""
    """what the source prints that freezing with pixels saves"""
    adapts: bool = False
    """model and clips are those of the encoder that `init_from` names"""
    decided: tuple[str, ...] = ()
    """what the source leaves open, and what was taken"""

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.config.recipe

    @property
    def line(self) -> str:
        """All but the decisions, in one line."""
        known = [self.source, f"to reach: {self.reaches}" if self.reaches else ""]
        return self.about + (f" ({'; '.join(filter(None, known))})" if any(known) else "")


class Times(TypedDict):
    """The fields of a `Schedule` that say when blocks freeze."""

    start: float
    interval: float
    first: int
    jump: int
    last: int


def freezing(steps: int, *, start: int, interval: int, first: int = 1, jump: int = 1, last: int) -> Times:
    """A schedule as the tables print it, in steps of a run of `steps`."""
    return Times(start=start / steps, interval=interval / steps, first=first, jump=jump, last=last)
