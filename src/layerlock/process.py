"""The process belongs to its user: what a verb changes in it for its own work is put back when it ends.

Torch's threads, the states of random generators (building a layer draws first values), warnings filters (libraries add
theirs when they are imported), the environment and FFmpeg's messages are as they were; glibc's memory settings, which
cannot be read, are set to its defaults.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch

_TRIM_THRESHOLD, _MOST_MAPPED = -1, -4
"""names of two settings in <malloc.h>"""
_KEPT = {_TRIM_THRESHOLD: -1, _MOST_MAPPED: 0}
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MOST_MAPPED: 65536}

_memory = Lock()
_inside = 0
"""verbs at work: one can be called within another, or in several threads"""
_memory_kept = False


@contextmanager
def put_back() -> Iterator[None]:
    """Within it, or within a function that it decorates, what holds for the whole process can be changed."""
    global _inside  # noqa: PLW0603
    threads, environment, filters = torch.get_num_threads(), dict(os.environ), list(warnings.filters)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    messages = sys.modules["av.logging"].get_level() if "av.logging" in sys.modules else None
    with _memory:
        _inside += 1
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if "av.logging" in sys.modules:
            sys.modules["av.logging"].set_level(messages)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        with _memory:
            _inside -= 1
            if _inside == 0:
                _set_memory(kept=False)


def keep_freed_memory(device: torch.device) -> None:
    """Lets glibc keep what is freed on the CPU, for the next step or clip to use, until `put_back` ends that this is
    called in; no effect elsewhere.

    As it stands it hands large blocks back to the system, which gives them out again page by page, each cleared first:
    a sixth of the time of a step, and of encoding in float32 (`docs/performance.md`).
    """
    if device.type == "cpu":
        with _memory:
            _set_memory(kept=True)


def _set_memory(kept: bool) -> None:
    """Sets glibc's memory settings, where they are others."""
    global _memory_kept  # noqa: PLW0603
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and kept != _memory_kept:
        for name, value in (_KEPT if kept else _DEFAULTS).items():
            mallopt(name, value)
        _memory_kept = kept
