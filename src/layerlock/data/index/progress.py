"""How far a piece of work is: a bar on a terminal, plain lines elsewhere, nothing while it goes quickly."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class IndexProgress:
    """A `progress` for `build_index`, or other work, to be used in a `with` block; it writes to standard error.

    `quiet`: nothing.
    """

    PATIENCE_SECONDS = 2.0
    PLAIN_SECONDS = 5.0

    def __init__(self, quiet: bool = False, doing: str = "looking into the videos") -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet, self._next = quiet, time.monotonic() + self.PATIENCE_SECONDS
        self._bar: Progress | None = None
        self._doing = doing

    def __enter__(self) -> IndexProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, count: int) -> None:
        """Shows that `done` of `count` videos have been looked into."""
        if self._bar:
            self._bar.update(self._task, completed=done)
        elif not self._quiet and time.monotonic() >= self._next:
            self._show(done, count)

    def _show(self, done: int, count: int) -> None:
        text = self._doing
        if self._console.is_terminal:
            columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=count, completed=done)
            self._bar.start()
        else:
            self._next = time.monotonic() + self.PLAIN_SECONDS
            self._console.print(f"{text}: {done:,} of {count:,}")
