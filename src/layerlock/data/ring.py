"""Memory that the workers fill with pixels and the reader takes them from: no pixel travels through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import fields
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch

from layerlock.data.clips import Sample

_FACTS = tuple(field.name for field in fields(Sample) if field.name not in ("video_tchw", "depth_thw"))

Facts = dict[str, Any]
"""a sample without its pixels, to send through a pipe"""

_PIXEL_BYTES = 3 + 4
"""three colours and a float32 depth, whose pages stay untaken where there is none"""


class Ring:
    """Shared memory for the clips on their way, one slot each; place i has slot i modulo `slots`.

    It is an unnamed file in memory, handed to a worker when that starts. Unlike /dev/shm it is not kept small inside
    containers, and unlike a file descriptor for each tensor it does not run out. Pages are taken when first written.
    """

    def __init__(self, *, slots: int, frames: int, side: int) -> None:
        self.slots, self.frames, self.side = slots, frames, side
        self._descriptor = _unnamed_file()
        os.ftruncate(self._descriptor, slots * frames * side * side * _PIXEL_BYTES)
        self._map()

    def _map(self) -> None:
        pixels = self.slots * self.frames * self.side * self.side
        memory = mmap.mmap(self._descriptor, pixels * _PIXEL_BYTES)
        shape = (self.slots, self.frames, self.side, self.side)
        self.depth_sthw = torch.frombuffer(memory, dtype=torch.float32, count=pixels).view(shape)
        video_n = torch.frombuffer(memory, dtype=torch.uint8, offset=4 * pixels)
        self.video_stchw = video_n.view(self.slots, self.frames, 3, self.side, self.side)
        self._video_stchw = self.video_stchw.numpy()  # quicker to index

    def fill(self, place: int, sample: Sample) -> Facts:
        """Leaves the pixels of a sample in their slot; what comes back is the rest."""
        slot = place % self.slots
        self.video_stchw[slot] = sample.video_tchw
        if sample.depth_thw is not None:
            self.depth_sthw[slot] = sample.depth_thw
        return {name: getattr(sample, name) for name in _FACTS} | {"with_depth": sample.depth_thw is not None}

    def take(self, place: int, facts: Facts, video_tchw: np.ndarray) -> Sample:
        """The sample again, its video copied into `video_tchw`: its slot is free from now on.

        One thread copies: several would wait for each other where the workers have all processors.
        """
        slot, rest = place % self.slots, dict(facts)
        video_tchw[:] = self._video_stchw[slot]
        depth_thw = self.depth_sthw[slot].clone() if rest.pop("with_depth") else None
        return Sample(**rest, video_tchw=torch.from_numpy(video_tchw), depth_thw=depth_thw)

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, ...]]:
        return _attached, (reduction.DupFd(self._descriptor), self.slots, self.frames, self.side)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _attached(descriptor: Any, slots: int, frames: int, side: int) -> Ring:
    ring = Ring.__new__(Ring)
    ring.slots, ring.frames, ring.side = slots, frames, side
    ring._descriptor = descriptor.detach()
    ring._map()
    return ring


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("layerlock")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
