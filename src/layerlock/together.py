"""What the processes of one job exchange and decide together, so that all go the same way; one alone keeps what it has.

`torchrun`, or whatever else sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, starts the processes;
within `job` they work together. All of them call each function that exchanges something at the same point of their
work.

Nobody waits for a process that has failed: each exchange begins with a meeting, and a process that fails, wherever that
is, comes to the next one with its error. So no other code has to know where one process alone may fail.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from layerlock.errors import ConfigError, LayerlockError, one_line

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import ProcessGroup, Store  # not in every build of torch

TIMEOUT = timedelta(minutes=30)
"""for a process to come to an exchange; the others wait as long where the first one indexes videos"""

UNHURRIED = timedelta(days=365)
"""for the first process to say what is next: it may be at work that is not divided"""

ROLL_CALL_SECONDS = 5.0

ASK_SECONDS = 0.05

RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""set by `torchrun`: how often its agent on this machine has started the processes again"""

Value = TypeVar("Value")


class ToldElsewhere(LayerlockError):
    """An error that another process of the job tells its user."""


@dataclass(kw_only=True)
class _Job:
    """A job that this process is at work in; `over` once it, or another, has failed."""

    number: int
    rank: int
    size: int
    store: Store
    over: bool = False
    unhurried: ProcessGroup | None = None
    """for what the first process says in its own time"""


_numbers = count()
_job: _Job | None = None


def size() -> int:
    """Number of the processes that were started as one job."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def leads() -> bool:
    """Whether this process is the first one: it writes files and talks to the user."""
    return rank() == 0


def launch() -> str:
    """What tells this launch by `torchrun` from others, and after a dot this start of it from those before a restart;
    empty without `torchrun`. Within a job.
    """
    return f"{_launch()}.{_start()}" if RESTARTS in os.environ else ""


def restarted(began: str) -> bool:
    """Whether an earlier start of this launch began something: then a restart goes on with that."""
    own = launch()
    return began != own and began.partition(".")[0] == own.partition(".")[0] != ""


@cache
def _launch() -> str:
    return str(_address().compare_set("layerlock launch", "", secrets.token_hex(8)).decode())


@cache
def _start() -> str:
    """What tells this start of the processes from those before a restart. The first process draws it, and gives it to
    whoever asks: the store holds what was said before, and agents of `torchrun` do not count restarts alike.
    """
    store, drawn = _address(), secrets.token_hex(8)
    if rank() > 0:
        store.set(f"layerlock asks {rank()}", drawn)
        start = str(store.get(f"layerlock answer {drawn}").decode())
        store.set(f"layerlock asks {rank()}", start)  # it has the answer
        return start
    waiting, until = set(range(1, size())), time.monotonic() + TIMEOUT.total_seconds()
    while True:
        for other in sorted(waiting):
            if store.check([f"layerlock asks {other}"]):
                asked = store.get(f"layerlock asks {other}").decode()
                store.set(f"layerlock answer {asked}", drawn)
                waiting -= {other} if asked == drawn else set()
        if not waiting:
            return drawn
        if time.monotonic() > until:
            raise RuntimeError(f"these did not come: {', '.join(map(str, sorted(waiting)))}")
        time.sleep(ASK_SECONDS)


def local_rank() -> int:
    """Number of this process among those of its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


def local_size() -> int:
    """Number of the processes of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


@contextmanager
def job() -> Iterator[None]:
    """Within it the processes that were started as one job exchange things; all leave it at the same time.

    What one of them raises ends all: the first process raises that error, or a LayerlockError that names the process
    and its machine; the others raise ToldElsewhere. Raises LayerlockError where a process does not come. A process
    that is alone, or within a job already, just does what it does.
    """
    global _job  # noqa: PLW0603
    if size() == 1 or _job is not None:
        yield
        return
    _job = own = _join()
    try:
        yield
        meet()
    except Exception as error:
        if not own.over:
            _meet(own, error=error)
        raise
    finally:
        _job = None
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _join() -> _Job:
    import torch.distributed.nn  # the defaults of its functions keep a group that is there when it is first imported
    from torch.distributed.distributed_c10d import PrefixStore

    number = next(_numbers)
    try:
        store = _store()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore(f"job {number}", store),
            rank=rank(),
            world_size=size(),
            timeout=TIMEOUT,
        )
        store.set(f"host {number} {rank()}", socket.gethostname())
    except (RuntimeError, ValueError) as error:
        raise LayerlockError(
            f"the {size()} processes of this job did not find each other: {_first_line(error)}"
        ) from None
    return _Job(number=number, rank=rank(), size=size(), store=store)


@cache
def _store() -> Store:
    """Where the processes of this start find each other; it outlives a job."""
    from torch.distributed.distributed_c10d import PrefixStore

    return PrefixStore(f"layerlock start {_start()}", _address())


@cache
def _address() -> Store:
    """The store that the launcher names; it may hold what was said before a restart."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    return store.underlying_store if isinstance(store, PrefixStore) else store


def alone() -> bool:
    """Whether this process is within no job: then there is nobody to exchange anything with."""
    return _job is None


@contextmanager
def exchanging() -> Iterator[None]:
    """What fails within is another process that does not answer: LayerlockError or ToldElsewhere."""
    assert _job is not None, "a process alone exchanges nothing"
    with _exchange(_job):
        yield


def meet() -> None:
    """Returns when all processes are here."""
    if _job is not None:
        _meet(_job)


def largest(value: int) -> int:
    """The largest value, 0 or more, that a process has."""
    return value if _job is None else _meet(_job, value)


def of_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, for all; the others make nothing."""
    if _job is None:
        return make()
    made: list[Any] = [make() if _job.rank == 0 else None]
    _meet(_job)
    with _exchange(_job):
        distributed.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    return made[0]


def agree(own: Mapping[str, object]) -> None:
    """Raises ConfigError with the names of what a process of the job was told otherwise than the first one."""
    first = of_first(lambda: dict(own))
    names = sorted(own.keys() | first.keys())
    different = [name for name in names if repr(own.get(name)) != repr(first.get(name))]
    if different:
        raise ConfigError(
            [f"{name}: {own.get(name)!r} here, {first.get(name)!r} in the first process" for name in different]
        )


def told(word: Any = None) -> Any:
    """What the first process says, for all; the others wait for it as long as it takes."""
    if _job is None:
        return word
    said = [word]
    with _exchange(_job):
        if _job.unhurried is None:
            _job.unhurried = distributed.new_group(backend="gloo", timeout=UNHURRIED)
        distributed.broadcast_object_list(said, src=0, group=_job.unhurried, device=torch.device("cpu"))
    return said[0]


def has_failed() -> bool:
    """Whether the job is over because of an error: nobody waits for an exchange any more."""
    return _job is not None and _job.over


def gathered(items: Sequence[Value]) -> list[Value]:
    """The items of all processes, in their order; a meeting alone where no process has any."""
    if _job is None:
        return list(items)
    if not _meet(_job, len(items)):
        return []
    every: list[Any] = [None] * _job.size
    with _exchange(_job):
        distributed.all_gather_object(every, list(items))
    return [item for each in every for item in each]


def _meet(job: _Job, word: int = 0, error: Exception | None = None) -> int:
    """The largest `word` of all processes, when all are here; one that has failed brings its `error`.

    Raises LayerlockError or ToldElsewhere where one has failed or does not come; a process that has failed by something
    else than a LayerlockError raises that.
    """
    brought = torch.tensor([word, 0 if error is None else job.size - job.rank])
    try:
        distributed.all_reduce(brought, distributed.ReduceOp.MAX)
        most, failed = brought.tolist()
        if not failed:
            return int(most)
        job.over = True
        first = job.size - failed
        words = [f"process {job.rank} on {socket.gethostname()}: {_text(error)}" if job.rank == first else ""]
        distributed.broadcast_object_list(words, src=first, device=torch.device("cpu"))
    except RuntimeError as broken:
        lost = _lost(job, broken)
        raise error or lost from None
    if error is not None and (job.rank == 0 or not isinstance(error, LayerlockError)):
        raise error
    raise LayerlockError(words[0]) if job.rank == 0 else ToldElsewhere(words[0])


@contextmanager
def _exchange(job: _Job) -> Iterator[None]:
    """What fails in it is another process that does not answer."""
    try:
        yield
    except RuntimeError as broken:
        raise _lost(job, broken) from None


def _lost(job: _Job, broken: RuntimeError) -> LayerlockError:
    """The error of a collective that failed: the first process that still runs names those that do not."""
    job.over = True
    reason = _first_line(broken.with_traceback(None))  # its frames hold the group
    if distributed.group.WORLD is not None:
        distributed.group.WORLD.abort()  # what a GPU still waits for
    distributed.destroy_process_group()  # whoever waits for this process hears of it, and comes to the roll call
    others = range(job.size)
    there, hosts = {job.rank}, dict.fromkeys(others, "")
    try:
        job.store.set(f"left {job.number} {job.rank}", "")
        until = time.monotonic() + ROLL_CALL_SECONDS
        while len(there) < job.size and time.monotonic() < until:
            there |= {other for other in others if job.store.check([f"left {job.number} {other}"])}
            time.sleep(0.05)
        hosts = {other: f" on {job.store.get(f'host {job.number} {other}').decode()}" for other in others}
    except RuntimeError:  # the first process, which may have had the store, has ended
        there = there if 0 in there else set(others[1:])
    missing = ", ".join(f"{other}{host}" for other, host in hosts.items() if other not in there)
    minutes = TIMEOUT.total_seconds() / 60
    text = f"these of {job.size} processes ended, or did not come to an exchange for {minutes:.0f} minutes: {missing}"
    error = text if missing else f"an exchange of {job.size} processes failed: {reason}"
    return LayerlockError(error) if job.rank == min(there) else ToldElsewhere(error)


def _text(error: Exception | None) -> str:
    return (
        str(error) if isinstance(error, LayerlockError) else f"{type(error).__name__}: {one_line(error or Exception())}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
