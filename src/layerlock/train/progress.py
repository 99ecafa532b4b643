"""Where a run stands: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """Shows each log line. `quiet` shows nothing."""

    PLAIN_SECONDS = 5.0

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._quiet, self._steps, self._last = quiet, steps, 0.0
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.fields[stage]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=steps, stage="", figures="")

    def __enter__(self) -> ProgressBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def show(self, line: dict[str, Any]) -> None:
        """The figures of a log line; off a terminal at most one line each few seconds."""
        timing = line["timing"]
        loss = " ".join(f"{name} {value:.4f}" for name, value in line["losses"].items())
        figures = f"loss {loss}  {timing['clips_per_s']:.0f} clips/s  wait {timing['data_wait']:.0%}"
        stage = f"frozen {line['frozen']} -> {line['targets']}"
        if self._bar:
            self._bar.update(self._task, completed=line["step"], stage=stage, figures=figures)
        elif not self._quiet and time.monotonic() - self._last >= self.PLAIN_SECONDS:
            self._last = time.monotonic()
            self.say(f"step {line['step']}/{self._steps}  {stage}  {figures}  left {timing['seconds_left']:.0f} s")
