"""Clips: what is asked of a source, one clip before crop and flip, and a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

ATTEMPTS = 20
"""candidates for one sample, at most: the videos tried before giving up"""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The shape of a clip. Defaults are LayerLock's (sec. 4): 16 frames at stride 2, 224 pixels."""

    frames: int = 16
    stride: int = 2
    """source frames from one frame of the clip to the next"""
    size: int = 224
    """height and width in pixels after the crop"""
    resize: float = 1.15
    """short side before the crop, as a multiple of size"""
    flip: bool = True
    """flip half of the clips left to right"""

    @property
    def margin(self) -> int:
        """Side in pixels of the square window that sources deliver: the short side of the resized video."""
        return round(self.size * self.resize)

    @property
    def span(self) -> int:
        """Source frames from the first to the last frame of a clip, both counted."""
        return (self.frames - 1) * self.stride + 1

    def problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        found = [
            f"clip.{name} is {value}; it has to be at least 1"
            for name, value in (("frames", self.frames), ("stride", self.stride), ("size", self.size))
            if value < 1
        ]
        if not 1.0 <= self.resize <= 8.0:
            found.append(f"clip.resize is {self.resize}; it has to be between 1 (no margin to crop from) and 8")
        return found


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip before crop and flip: the smallest square window of the resized frames that surely holds its crop."""

    index: int
    """global sample index"""
    name: str
    """file path, or "synthetic/123", for messages"""
    video_tchw: Tensor
    """uint8 [T, 3, R, R], R = clip.margin"""
    crop_y: int
    crop_x: int
    """top-left corner of the size x size crop inside the window"""
    flip: bool
    label: int = -1
    """class, where the source knows it"""
    depth_thw: Tensor | None = None
    """float32 metres [T, R, R]; None unless asked for"""
    skipped: tuple[tuple[str, str], ...] = ()
    """(file, reason) of the files tried before this one and found unusable"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples stacked; fields as in `Sample`. `size` is the side of the crop to come, the same for all."""

    index_b: Tensor
    """int64 [B]"""
    names: tuple[str, ...]
    video_btchw: Tensor
    """uint8 [B, T, 3, R, R]"""
    crop_b2: Tensor
    """int64 [B, 2]: (y, x)"""
    flip_b: Tensor
    """bool [B]"""
    label_b: Tensor
    """int64 [B]"""
    size: int
    depth_bthw: Tensor | None = None
    """float32 metres [B, T, R, R]"""
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; copies from pinned memory do not wait."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return Batch(
            index_b=move(self.index_b),
            names=self.names,
            video_btchw=move(self.video_btchw),
            crop_b2=move(self.crop_b2),
            flip_b=move(self.flip_b),
            label_b=move(self.label_b),
            size=self.size,
            depth_bthw=None if self.depth_bthw is None else move(self.depth_bthw),
            skipped=self.skipped,
        )

    def slice(self, start: int, stop: int) -> Batch:
        """Clips start..stop-1 as a batch of their own (views), for micro-batches; `skipped` stays with the first."""
        return Batch(
            index_b=self.index_b[start:stop],
            names=self.names[start:stop],
            video_btchw=self.video_btchw[start:stop],
            crop_b2=self.crop_b2[start:stop],
            flip_b=self.flip_b[start:stop],
            label_b=self.label_b[start:stop],
            size=self.size,
            depth_bthw=None if self.depth_bthw is None else self.depth_bthw[start:stop],
            skipped=self.skipped if start == 0 else (),
        )


def collate(samples: Sequence[Sample], size: int) -> Batch:
    """Stack samples into a batch; `size` is the side of the crop, `ClipConfig.size`."""
    depths = [sample.depth_thw for sample in samples if sample.depth_thw is not None]
    return Batch(
        index_b=torch.tensor([sample.index for sample in samples]),
        names=tuple(sample.name for sample in samples),
        video_btchw=torch.stack([sample.video_tchw for sample in samples]),
        crop_b2=torch.tensor([(sample.crop_y, sample.crop_x) for sample in samples]),
        flip_b=torch.tensor([sample.flip for sample in samples]),
        label_b=torch.tensor([sample.label for sample in samples]),
        size=size,
        depth_bthw=torch.stack(depths) if len(depths) == len(samples) else None,
        skipped=tuple(entry for sample in samples for entry in sample.skipped),
    )


@runtime_checkable
class Source(Protocol):
    """Where clips come from: picklable, cheap to construct, and a pure function of (seed, global sample index).

    A sample has candidates 0, 1, ...: a video that cannot be used is replaced by the next one.
    """

    clip: ClipConfig

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of what was found unusable before the first sample."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short text that differs where the samples do, for reasons other than the clip's shape and the seed."""
        ...

    def __len__(self) -> int:
        """Number of videos."""
        ...

    def sample(self, index: int, attempt: int = 0) -> Sample:
        """The clip for a global sample index, the same on any machine, worker and process.

        It is of the first usable candidate from number `attempt` on. Raises LayerlockError when there is none.
        """
        ...

    def name(self, index: int, attempt: int = 0) -> str:
        """What candidate `attempt` of a sample is called, without decoding; one that `sample` can be asked for."""
        ...

    def video_name(self, video: int) -> str:
        """What a video is called, by its position from 0, without decoding."""
        ...

    def view(self, video: int) -> Sample:
        """The middle clip of a video, by its position from 0, cut in the centre and not flipped. Raises
        UnreadableVideo.
        """
        ...
