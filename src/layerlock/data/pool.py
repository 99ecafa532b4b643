"""Tasks in other processes that may crash or hang without harm: such a task is given up, the rest goes on."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import types
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from layerlock.errors import LayerlockError

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task whose process died, or was ended because it took too long."""

    reason: str


@dataclass(frozen=True)
class _Raised:
    """An exception that the function was not expected to raise: a mistake in the program."""

    text: str


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | None,
    seconds: float,
    ahead: int = 0,
    needs_main: bool = False,
) -> Generator[Result | Failure, None, None]:
    """`function(task)` of each task, in order of the tasks. Close the generator to end the processes early.

    `function` is picklable; it is sent to each process once, at its start. `workers` None is one for each processor,
    0 runs the tasks right here, without protection. A process has `seconds` for a task: one that takes longer, and one
    that dies, costs that task a Failure and is replaced. Tasks are given out up to `ahead` beyond the last result
    asked for, so that the processes need not wait for the reader; `ahead` 0 is two for each process. `needs_main`: the
    function comes from the user's script, which then is imported in each process. Raises LayerlockError for a negative
    number of workers.
    """
    if workers is not None and workers < 0:
        raise LayerlockError(f"workers: {workers} is negative")
    count = min(processors() if workers is None else workers, len(tasks))
    if count == 0:
        yield from map(function, tasks)
        return
    hands: list[_Hand] = []
    try:
        for _ in range(count):
            hands.append(_Hand(function, needs_main))
        yield from _in_order(hands, tasks, seconds, ahead or 2 * count)
    finally:
        for hand in hands:
            hand.stop()


def _in_order(hands: list[_Hand], tasks: Sequence[Any], seconds: float, ahead: int) -> Iterator[Any]:
    done: dict[int, Any] = {}
    given = 0
    for asked in range(len(tasks)):
        while given < min(len(tasks), asked + ahead):
            min(hands, key=lambda hand: len(hand.waiting)).give(given, tasks[given])
            given += 1
        waiting_since = time.monotonic()
        while asked not in done:
            _collect(hands, done, waiting_since, seconds)
        result = done.pop(asked)
        if isinstance(result, _Raised):
            raise RuntimeError(f"a worker process failed:\n{result.text}")
        yield result


def _collect(hands: list[_Hand], done: dict[int, Any], waiting_since: float, seconds: float) -> None:
    """Waits until some process has answered, died or run out of time, and takes all that there is."""
    busy = [hand for hand in hands if hand.waiting]
    ends = {hand: max(hand.since, waiting_since) + seconds for hand in busy}
    ready = wait([hand.pipe for hand in busy], timeout=max(0.0, min(ends.values()) - time.monotonic()))
    for hand in busy:
        if hand.pipe in ready:
            done.update(hand.answers())
        elif time.monotonic() >= ends[hand]:
            done.update(hand.replaced("it takes too long"))


class _Hand:
    """One process and the tasks it has been given, which it answers in order."""

    def __init__(self, function: Callable[[Any], Any], needs_main: bool) -> None:
        self.function = function
        self.needs_main = needs_main
        self.waiting: deque[tuple[int, Any]] = deque()
        self.since = time.monotonic()
        self._start()
        _at_work.add(self)

    def _start(self) -> None:
        context = _process_context()
        self.pipe, far = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(far, self.function), daemon=True)
        with _main_hidden(not self.needs_main):
            self.process.start()
        far.close()

    def give(self, number: int, task: Any) -> None:
        if not self.waiting:
            self.since = time.monotonic()
        self.waiting.append((number, task))
        with suppress(OSError):  # a dead process is found out when its answer is read
            self.pipe.send_bytes(pickle.dumps(task))

    def answers(self) -> dict[int, Any]:
        """Number and result of all tasks answered by now."""
        found: dict[int, Any] = {}
        try:
            while self.waiting and self.pipe.poll():
                answer = pickle.loads(self.pipe.recv_bytes())
                found[self.waiting.popleft()[0]] = answer
                self.since = time.monotonic()
        except (EOFError, OSError):
            self.process.join(5.0)
            found |= self.replaced(f"it crashes the process that works on it ({_how_it_ended(self.process.exitcode)})")
        return found

    def replaced(self, reason: str) -> dict[int, Any]:
        """A new process in place of this one; the task in work has failed, those behind it are given again."""
        self.stop()
        self._start()
        number, _ = self.waiting.popleft()
        again, self.waiting = self.waiting, deque()
        for later, task in again:
            self.give(later, task)
        return {number: Failure(reason=reason)}

    def stop(self) -> None:
        """Ends the process; no harm if that is done already."""
        if self.pipe.closed:
            return
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()


_at_work: weakref.WeakSet[_Hand] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Processes that ignore SIGTERM would hold up the exit of a program that leaves a generator unfinished."""
    for hand in list(_at_work):
        hand.stop()


def _how_it_ended(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _process_context() -> ForkServerContext:
    """Processes forked from a server that has torch and the decoder loaded: quick to start, free of our threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "av", "layerlock.data.folder"])
    resource_tracker.ensure_running()  # would lift the block below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()  # inherits the block: a SIGTERM to the whole group has to leave it alive
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _main_hidden(hide: bool) -> Iterator[None]:
    """Keeps the user's script from being run again in each process that is started inside."""
    main = sys.modules["__main__"]
    if hide:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a process: answer tasks until the other end is closed."""
    _settle()
    with suppress(EOFError, OSError):
        while True:
            task = pickle.loads(pipe.recv_bytes())
            try:
                answer = function(task)
            except Exception:
                answer = _Raised(traceback.format_exc())
            pipe.send_bytes(pickle.dumps(answer))


def _settle() -> None:
    """Leaves Ctrl-C and SIGTERM to the parent, so that it can save its work; ends when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    torch.set_num_threads(1)
