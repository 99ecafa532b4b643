"""What a run wrote down, read back: log lines, the stages they fall into, events, and how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from layerlock.config import Config
from layerlock.errors import LayerlockError
from layerlock.learn.observed import followed, observes
from layerlock.learn.plan import Stage
from layerlock.train.folder import RunFolder

_EVENT = re.compile(r"(\S+) step \d+ ([\w-]+): (.*)")

Line = dict[str, Any]
"""A line of `metrics.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of `events.log`."""

    when: str
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stage of a run: updates `begin` + 1 .. `end`, and the log lines that were written in it (none: not reached).

    `stage` is its structure, where the config's own plan explains what happened; None for a plan given in code.
    `reason` is why it began, where the plan decided that by what it observed.
    """

    begin: int
    end: int
    frozen: int
    targets: str
    lines: tuple[Line, ...] = ()
    stage: Stage | None = None
    reason: str = ""

    def losses(self) -> list[float]:
        """The logged losses that are numbers, in order."""
        return [value for line in self.lines if math.isfinite(value := number(line.get("loss")))]


@dataclass(frozen=True, kw_only=True)
class History:
    """All of a run that its logs tell."""

    config: Config
    versions: dict[str, str]
    lines: tuple[Line, ...]
    events: tuple[Event, ...]
    spans: tuple[Span, ...]
    watched: tuple[Line, ...] = ()
    """lines of `watch.jsonl`"""

    @property
    def step(self) -> int:
        """Updates done at the last log line."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def planned(self) -> bool:
        """Whether the config's plan is the one that was trained by."""
        return all(span.stage is not None for span in self.spans)

    @property
    def reached(self) -> tuple[Span, ...]:
        """The spans that have a log line."""
        return tuple(span for span in self.spans if span.lines)

    def of_kind(self, *kinds: str) -> list[Event]:
        """The events of some kinds, in order."""
        return [event for event in self.events if event.kind in kinds]

    def ending(self) -> str:
        """How the run came to its end, in words."""
        for event in reversed(self.events):
            if event.kind == "end":
                return "It ran to the end."
            if event.kind == "stop":
                return f"It was stopped by a signal {event.text}; it can be resumed."
            if event.kind == "error":
                return f"It stopped on an error: {event.text}."
            if event.kind in ("switch", "resume"):
                break
        return "No end is recorded: it is still running, or it was killed."


def read_history(folder: RunFolder, config: Config, versions: dict[str, str]) -> History:
    """Reads both logs of a run folder; missing or cut short, they count as far as they go."""
    lines, watched = _usable(folder.lines()), _usable(folder.watched())
    events, spans = tuple(_events(folder)), _spans(config, lines)
    return History(config=config, versions=versions, lines=lines, events=events, spans=spans, watched=watched)


def _usable(lines: Iterable[Any]) -> tuple[Line, ...]:
    return tuple(line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int))


def _events(folder: RunFolder) -> list[Event]:
    if not folder.events.exists():
        return []
    text = folder.events.read_text(encoding="utf-8", errors="replace")
    found = (_EVENT.fullmatch(line) for line in text.split("\n"))
    return [Event(when=hit[1], kind=hit[2], text=hit[3]) for hit in found if hit]


def _spans(config: Config, lines: Sequence[Line]) -> tuple[Span, ...]:
    seen = _seen(lines)
    planned = _planned(config, lines)
    fits = len(seen) <= len(planned) and all(
        (a.begin, a.frozen, a.targets) == (b.begin, b.frozen, b.targets) for a, b in zip(seen, planned, strict=False)
    )
    if not fits:
        return tuple(seen)
    written = [span.lines for span in seen] + [()] * (len(planned) - len(seen))
    return tuple(replace(span, lines=lines) for span, lines in zip(planned, written, strict=True))


def _seen(lines: Sequence[Line]) -> list[Span]:
    """Stages as the log lines tell them: each ends with a line of its own at the switch."""
    found: list[Span] = []
    for (frozen, targets), group in groupby(lines, lambda line: (line.get("frozen", 0), str(line.get("targets", "")))):
        part = tuple(group)
        begin = found[-1].end if found else 0
        found.append(Span(begin=begin, end=part[-1]["step"], frozen=frozen, targets=targets, lines=part))
    return found


def _planned(config: Config, lines: Sequence[Line]) -> list[Span]:
    """The stages of the config's plan; of one that decides by what it observes those up to the last log line."""
    try:
        plan = config.build_plan()
        switches = followed(plan, config.steps, lines)
    except (ValueError, LayerlockError):
        return []
    last = lines[-1]["step"] if lines and observes(plan) else config.steps
    ends = [*(switch.step for switch in switches[1:]), last]
    return [
        Span(begin=s.step, end=end, frozen=s.stage.frozen, targets=s.stage.targets, stage=s.stage, reason=s.reason)
        for s, end in zip(switches, ends, strict=True)
    ]


def number(value: Any) -> float:
    """A logged value as a float; NaN for what is not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def series(lines: Sequence[Line], *path: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure, of the lines that have it; `path` leads into tables: `"timing", "data_wait"`."""
    steps, values = [], []
    for line in lines:
        value: Any = line
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            steps.append(line["step"])
            values.append(number(value))
    return steps, values


def keys(lines: Sequence[Line], name: str) -> list[str]:
    """The names within a table of figures (`losses`, `target_variance`), in the order in which they appear."""
    tables = (line.get(name) for line in lines)
    return list(dict.fromkeys(key for table in tables if isinstance(table, dict) for key in table))


def clock(stamp: str) -> str:
    """A time stamp for people, to the minute; as it stands where it is none."""
    try:
        return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return stamp
