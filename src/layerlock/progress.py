"""How far a piece of work is: a bar on a terminal, plain lines elsewhere, nothing while it goes quickly."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

INDEXING = "indexing videos"
"""what `build_index` does"""


class Progress:
    """What calls `(done, count)` to it, in a `with` block, has done so much of the work called `doing`.

    It begins to show after `patience` seconds, on standard error or, for `out`, on standard output, where a bar stays
    when it is done. `quiet`: nothing is shown.
    """

    PATIENCE_SECONDS = 2.0
    PLAIN_SECONDS = 5.0
    """from one plain line to the next"""

    def __init__(self, doing: str, quiet: bool = False, *, out: bool = False, patience: float | None = None) -> None:
        self._console = Console(stderr=not out, highlight=False, soft_wrap=True)
        patience = self.PATIENCE_SECONDS if patience is None else patience
        self._doing, self._quiet, self._next = doing, quiet, time.monotonic() + patience
        self._bar: Bar | None = None
        self._stays = out

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, count: int, told: str = "") -> None:
        """Shows that `done` of `count` pieces are done, and what is `told` of them."""
        if self._bar:
            self._bar.update(self._task, completed=done, told=told)
        elif not self._quiet and time.monotonic() >= self._next:
            self._show(done, count, told)

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def _show(self, done: int, count: int, told: str) -> None:
        if self._console.is_terminal:
            columns = (
                *(TextColumn(self._doing, markup=False), BarColumn(), MofNCompleteColumn()),
                *(TextColumn("{task.fields[told]}", markup=False), TimeRemainingColumn()),
            )
            self._bar = Bar(*columns, console=self._console, transient=not self._stays)
            self._task = self._bar.add_task("", total=count, completed=done, told=told)
            self._bar.start()
        else:
            self._next = time.monotonic() + self.PLAIN_SECONDS
            self.say(f"{self._doing}: {done:,} of {count:,}{f'  {told}' if told else ''}")
