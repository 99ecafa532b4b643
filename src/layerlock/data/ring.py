"""Memory that the workers fill with pixels and the reader takes them from: no pixel travels through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch

from layerlock.data.clips import Sample

_FACTS = tuple(field.name for field in fields(Sample) if field.name not in ("video_tchw", "targets"))

Facts = dict[str, Any]
"""a sample without its pixels, to send through a pipe"""


class Ring:
    """Shared memory for the clips on their way, with `maps`, their targets that have a float32 for every pixel.

    A clip has a slot; place i has slot i modulo `slots`.

    It is an unnamed file in memory, handed to a worker when that starts. Unlike /dev/shm it is not kept small inside
    containers, and unlike a file descriptor for each tensor it does not run out. Pages are taken when first written.
    """

    def __init__(self, *, slots: int, frames: int, side: int, maps: Sequence[str] = ()) -> None:
        self.slots, self.frames, self.side, self.maps = slots, frames, side, tuple(maps)
        self._descriptor = _unnamed_file()
        self._attach()

    def _attach(self) -> None:
        pixels = self.slots * self.frames * self.side * self.side
        size = pixels * (3 + 4 * len(self.maps))
        os.ftruncate(self._descriptor, size)
        memory = mmap.mmap(self._descriptor, size)
        shape = (self.slots, self.frames, self.side, self.side)
        self._map_sthw = {
            name: torch.frombuffer(memory, dtype=torch.float32, count=pixels, offset=4 * pixels * n).view(shape)
            for n, name in enumerate(self.maps)
        }
        video_n = torch.frombuffer(memory, dtype=torch.uint8, offset=4 * pixels * len(self.maps))
        self.video_stchw = video_n.view(self.slots, self.frames, 3, self.side, self.side)
        self._video_stchw = self.video_stchw.numpy()  # quicker to index

    def fill(self, place: int, sample: Sample) -> Facts:
        """Leaves the pixels and maps of a sample in their slot; what comes back is the rest."""
        slot = place % self.slots
        self.video_stchw[slot] = sample.video_tchw
        for name, map_sthw in self._map_sthw.items():
            map_sthw[slot] = sample.targets[name]
        # as arrays, which are quicker to send
        others = {name: target.numpy() for name, target in sample.targets.items() if name not in self._map_sthw}
        return {name: getattr(sample, name) for name in _FACTS} | {"targets": others}

    def take(self, place: int, facts: Facts, video_tchw: np.ndarray) -> Sample:
        """The sample again, its video copied into `video_tchw`: its slot is free from now on.

        One thread copies: several would wait for each other where the workers have all processors.
        """
        slot = place % self.slots
        video_tchw[:] = self._video_stchw[slot]
        targets = {name: torch.from_numpy(target) for name, target in facts["targets"].items()}
        targets |= {name: map_sthw[slot].clone() for name, map_sthw in self._map_sthw.items()}
        return Sample(**facts | {"targets": targets, "video_tchw": torch.from_numpy(video_tchw)})

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, ...]]:
        return _attached, (reduction.DupFd(self._descriptor), self.slots, self.frames, self.side, self.maps)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _attached(descriptor: Any, slots: int, frames: int, side: int, maps: tuple[str, ...]) -> Ring:
    ring = Ring.__new__(Ring)
    ring.slots, ring.frames, ring.side, ring.maps = slots, frames, side, maps
    ring._descriptor = descriptor.detach()
    ring._attach()
    return ring


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("layerlock")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
