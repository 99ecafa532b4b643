"""Clips spread over the cores of a CPU, for frozen encoders.

Layers that all cores share wait for the slowest core every time. A clip to a core waits once a clip, its activations
stay in that core's cache, and its features do not depend on how many cores there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

Read = Callable[[Tensor], list[Tensor]]
"""A clip `[1, ...]` in, features `[1, ...]` of several depths out."""


def clip_by_clip(read: Read, video_btchw: Tensor) -> list[Tensor]:
    """What `read` makes of each clip alone, joined by depth: `[B, ...]` each, without gradients.

    As many clips at a time as torch has threads, each clip on a thread of its own; what is left of a batch then is read
    by all threads together, one clip after the other.
    """
    read, clips, threads = torch.no_grad()(read), video_btchw.split(1), torch.get_num_threads()
    spread = 0 if threads == 1 or _bound_to_this_thread() else len(clips) // threads * threads
    found = [*_readers(threads).map(read, clips[:spread])] if spread else []
    found += map(read, clips[spread:])
    return [torch.cat(same_depth) for same_depth in zip(*found, strict=True)]


def _bound_to_this_thread() -> bool:
    """Whether something is in force that holds in the calling thread only: autocast, tracing, a counter of FLOPs."""
    tracing = torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
    return tracing or torch.is_autocast_enabled("cpu")


@lru_cache(maxsize=1)
def _readers(count: int) -> ThreadPoolExecutor:
    """That many threads, each with one thread of torch to itself."""
    pool, all_there = ThreadPoolExecutor(count, thread_name_prefix="layerlock-reader"), Barrier(count)

    def begin(_: int) -> None:
        torch.get_num_threads()  # makes torch set this thread up as it does every new one; later it would undo the next
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(begin, range(count)))
    torch.set_num_threads(count)  # threads to come take the last number set in any of them
    return pool
