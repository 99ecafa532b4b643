"""Tasks in other processes that may crash or hang without harm: such a task is given up, the rest goes on."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
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

MOST_PROCESSES = 1_024

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
    asked for, whatever the reader does in the meantime; `ahead` 0 is two for each process. Results may be of any size.
    `needs_main`: the function comes from the user's script, which then is imported in each process. Raises
    LayerlockError for a negative number of workers, and for more than `MOST_PROCESSES`.
    """
    if workers is not None and workers < 0:
        raise LayerlockError(f"workers: {workers} is negative")
    if workers is not None and workers > MOST_PROCESSES:
        raise LayerlockError(f"workers: {workers:,} is more than {MOST_PROCESSES:,} processes")
    count = min(processors() if workers is None else workers, len(tasks))
    if count == 0:
        yield from map(function, tasks)
        return
    crew = _Crew(tasks, seconds, ahead or 2 * count)
    try:
        crew.start(function, count, needs_main)
        for number in range(len(tasks)):
            result = crew.result(number)
            if isinstance(result, _Raised):
                raise RuntimeError(f"a worker process failed:\n{result.text}")
            yield result
    finally:
        crew.stop()


class _Crew:
    """Processes, and a thread of this one that gives them tasks and takes their answers as soon as they come.

    A process that waits for its answer to be read takes no tasks. So the thread never waits for one to take a task (see
    `_Hand.has_room`), and never for the reader: whatever is sent, and whoever is slow, nobody waits in a circle.
    """

    def __init__(self, tasks: Sequence[Any], seconds: float, ahead: int) -> None:
        self._tasks, self._seconds, self._ahead = tasks, seconds, ahead
        self._hands: list[_Hand] = []
        self._thread = threading.Thread(target=self._work, name="layerlock pool", daemon=True)
        self._bell, self._button = multiprocessing.Pipe(duplex=False)  # ends the thread's waiting
        self._changed = threading.Condition()  # guards what follows
        self._done: dict[int, Any] = {}
        self._asked = 0
        self._given = 0
        self._waits_for_reader = False
        self._stopping = False
        self._broken: BaseException | None = None

    def start(self, function: Callable[[Any], Any], count: int, needs_main: bool) -> None:
        """Starts so many processes, and the thread."""
        _at_work.add(self)
        for _ in range(count):
            self._hands.append(_Hand(function, needs_main))
        self._thread.start()

    def result(self, number: int) -> Any:
        """The result of a task, which nobody asks for twice; those before it have been asked for."""
        with self._changed:
            self._asked = number
            if self._waits_for_reader:
                self._waits_for_reader = False
                self._button.send_bytes(b"")
            self._changed.wait_for(lambda: number in self._done or self._broken)
            if self._broken:
                raise self._broken
            return self._done.pop(number)

    def stop(self) -> None:
        """Ends the processes; no harm if that is done already."""
        if self._button.closed:
            return
        if self._thread.is_alive():
            self._stopping = True
            self._button.send_bytes(b"")
            self._thread.join()
        self._bell.close()
        self._button.close()
        for hand in self._hands:
            hand.stop()

    def _work(self) -> None:
        try:
            while not self._stopping:
                self._give()
                self._take()
        except BaseException as error:  # it is the reader's: nobody else would see it
            with self._changed:
                self._broken = error
                self._changed.notify()

    def _give(self) -> None:
        """Gives out what the reader's place and the room that the processes have allow."""
        with self._changed:
            limit = min(len(self._tasks), self._asked + self._ahead)
            while self._given < limit:
                message = pickle.dumps(self._tasks[self._given])
                hand = min(self._hands, key=lambda hand: len(hand.waiting))
                if not hand.has_room(message):
                    return
                hand.give(self._given, message)
                self._given += 1
            self._waits_for_reader = limit < len(self._tasks)

    def _take(self) -> None:
        """Waits until some process has answered, died or run out of time, and takes all that there is."""
        busy = [hand for hand in self._hands if hand.waiting]
        ends = {hand: hand.since + self._seconds for hand in busy}
        timeout = max(0.0, min(ends.values()) - time.monotonic()) if busy else None
        ready = set(wait([self._bell, *(hand.pipe for hand in busy)], timeout=timeout))
        if self._bell in ready:
            self._bell.recv_bytes()
        answers: dict[int, Any] = {}
        for hand in busy:
            if hand.pipe in ready:
                answers |= hand.answers()
            elif time.monotonic() >= ends[hand]:
                answers |= hand.replaced("it takes too long")
        with self._changed:
            self._done |= answers
            if self._asked in answers:
                self._changed.notify()


_at_work: weakref.WeakSet[_Crew] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Processes that ignore SIGTERM would hold up the exit of a program that leaves a generator unfinished."""
    for crew in list(_at_work):
        crew.stop()


_IN_HAND = 8
"""tasks that a process holds, at most: enough not to wait for the next, few enough to be shared out evenly"""

_SURELY_TAKEN = 4096
"""bytes that a socket takes on any system though nobody reads: what a process holds besides the task it works on"""


class _Hand:
    """One process and the tasks it has been given, which it answers in order."""

    def __init__(self, function: Callable[[Any], Any], needs_main: bool) -> None:
        self.function = function
        self.needs_main = needs_main
        self.waiting: deque[tuple[int, bytes]] = deque()
        """number and message of the tasks that are not answered"""
        self.since = time.monotonic()
        self._start()

    def _start(self) -> None:
        context = _process_context()
        self.pipe, far = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(far, self.function), daemon=True)
        with _main_hidden(not self.needs_main):
            self.process.start()
        far.close()

    def has_room(self, message: bytes) -> bool:
        """Whether a task can be sent without waiting for the process to read it, even if that waits for its reader."""
        sizes = [len(message), *(len(waiting) for _, waiting in self.waiting)]
        return len(sizes) == 1 or (len(sizes) <= _IN_HAND and sum(sizes) <= _SURELY_TAKEN)

    def give(self, number: int, message: bytes) -> None:
        """Sends a pickled task."""
        if not self.waiting:
            self.since = time.monotonic()
        self.waiting.append((number, message))
        with suppress(OSError):  # a dead process is found out when its answer is read
            self.pipe.send_bytes(message)

    def answers(self) -> dict[int, Any]:
        """Number and result of all tasks answered by now."""
        answers: dict[int, Any] = {}
        try:
            while self.waiting and self.pipe.poll():
                answer = pickle.loads(self.pipe.recv_bytes())
                answers[self.waiting.popleft()[0]] = answer
                self.since = time.monotonic()
        except (EOFError, OSError):
            self.process.join(5.0)
            answers |= self.replaced(
                f"it crashes the process that works on it ({_how_it_ended(self.process.exitcode)})"
            )
        return answers

    def replaced(self, reason: str) -> dict[int, Any]:
        """A new process in place of this one; the task in work has failed, those behind it are given again."""
        self.stop()
        self._start()
        number, _ = self.waiting.popleft()
        again, self.waiting = self.waiting, deque()
        for later, message in again:
            self.give(later, message)
        return {number: Failure(reason=reason)}

    def stop(self) -> None:
        """Ends the process; no harm if that is done already."""
        if self.pipe.closed:
            return
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()


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


_hiding = threading.Lock()


@contextmanager
def _main_hidden(hide: bool) -> Iterator[None]:
    """Keeps the user's script from being run again in each process that is started inside, by one thread at a time."""
    with _hiding:
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
