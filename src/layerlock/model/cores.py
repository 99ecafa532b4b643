"""Clips spread over the cores of a CPU.

Layers that all cores share wait for the slowest core every time. Where each core has clips of its own it waits once,
activations stay in that core's cache, and each clip's features are those of one thread, however many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch
from torch import Tensor

from layerlock import (
    first_calls,  # noqa: F401  same numbers on several threads
    torch_private,
)

Item = TypeVar("Item")
Made = TypeVar("Made")
Read = Callable[[Tensor], list[Tensor]]
"""A clip `[1, ...]` in, features `[1, ...]` of several depths out; called from several threads at once."""

_counting = Lock()


def clip_by_clip(read: Read, video_btchw: Tensor) -> list[Tensor]:
    """What `read` makes of each clip alone, joined by depth: `[B, ...]` each, without gradients.

    As many clips at a time as torch has threads, each on a thread of its own; what is left of a batch then is read by
    all threads together, one clip after the other, and may be rounded in another way. Hooks inside a model run on those
    threads. Clips that were begun when one fails are read to their end. In a process that is forked afterwards torch
    has one thread (`mind_forks`).
    """
    read, clips = torch.no_grad()(read), video_btchw.split(1)
    found = full_rounds(read, clips)
    found += [read(clip) for clip in clips[len(found) :]]
    return [torch.cat(same_depth) for same_depth in zip(*found, strict=True)]


def full_rounds(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """What `work` makes of the first items: as many at a time as torch has threads, each on a thread of its own on
    which torch has one, in as many rounds as occupy all of them. None of the items where that is not possible: torch
    has one thread, there are fewer items or fewer cores, or something is in force in the calling thread alone.
    """
    if torch_private.bound_to_this_thread():
        return []
    mind_forks()
    with _counting:  # no other caller may count threads while readers are set up
        threads = torch.get_num_threads()
        if not 1 < threads <= min(len(items), _cores()):
            return []
        readers = _readers(threads)
    return list(readers.map(work, items[: len(items) // threads * threads]))


@lru_cache(maxsize=1)
def mind_forks() -> None:
    """From now on a forked process begins without the threads of this one, ours and torch's, which are not there: what
    waited for them would do so for ever. Torch has one thread there, since it cannot make new ones.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_threads)


def _forget_threads() -> None:
    global _counting  # noqa: PLW0603  a thread that is not there may hold it
    _counting = Lock()
    _readers.cache_clear()
    torch.set_num_threads(1)


def _cores() -> int:
    """Cores that new threads may run on: with OMP_PROC_BIND just the one that this thread is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _readers(count: int) -> ThreadPoolExecutor:
    """That many threads, each with one thread of torch to itself.

    A thread of someone else's that asks torch for the first time while they are set up, some milliseconds, keeps one.
    """
    pool, all_there = ThreadPoolExecutor(count, thread_name_prefix="layerlock-reader"), Barrier(count)

    def begin(_: int) -> None:
        torch.get_num_threads()  # makes torch set this thread up as it does every new one; later it would undo the next
        torch.set_num_threads(1)
        all_there.wait()

    try:
        list(pool.map(begin, range(count)))
    except BaseException:  # no thread is to be had, or Ctrl-C: those that wait would do so for ever
        all_there.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(count)  # threads to come take the last number set in any of them
    return pool
