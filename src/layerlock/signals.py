"""SIGTERM and Ctrl-C as a wish that the loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from layerlock import together


class StopSignal:
    """Within it, the first SIGINT or SIGTERM only sets `received`; the second acts as it always does.

    In a job of several processes the second does nothing: one that was sent to all of them and to their launcher, which
    passes it on, arrives twice.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if together.size() == 1:
            signal.signal(number, self._before[number])
