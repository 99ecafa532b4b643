"""Clips: what is asked of a source, one clip before crop and flip, and a batch of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from layerlock.data.decode.video import Cut
from layerlock.data.targets import Kind

ATTEMPTS = 20
"""candidates for one sample, at most: the videos tried before giving up"""


MOST_BYTES = 1 << 30
"""of the pixels of a clip before its crop: 340 times those of 16 frames of 224 x 224"""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The shape of a clip. Defaults are LayerLock's (sec. 4): 16 frames at stride 2, 224 pixels."""

    frames: int = 16
    stride: int = 2
    """source frames from one frame of the clip to the next"""
    fps: float | None = None
    """sample by time: frames a second, in place of `stride`"""
    backend: Literal["pyav", "torchcodec"] = "pyav"
    """what decodes video files; the two give the same frames, resized a little differently"""
    per_decode: int = 1
    """clips that come from one opened video: consecutive samples, from one stretch of it"""
    size: int = 224
    """height and width in pixels after the crop"""
    resize: float = 1.15
    """short side before the crop, as a multiple of size"""
    flip: bool = True
    """flip half of the clips left to right"""
    area: tuple[float, float] | None = None
    """random-size crop: the part of the picture that it covers, from and to; None crops size x size pixels"""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """random-size crop: width over height, from and to"""
    jitter: float = 0.0
    """probability of random brightness, saturation, contrast and hue (Table 12)"""
    grayscale: float = 0.0
    """probability of a grayscale clip"""

    @property
    def resize_side(self) -> int:
        """Short side in pixels of the resized video, and side of the square window of it that sources deliver."""
        return round(self.size * self.resize)

    @property
    def bytes(self) -> int:
        """Of the pixels of a clip before its crop."""
        return self.frames * 3 * self.resize_side**2

    def cut(self, start: float) -> Cut:
        """The clip that begins at a frame of a video."""
        seconds = None if self.fps is None else 1 / self.fps
        return Cut(start=start, frames=self.frames, stride=self.stride, seconds=seconds)

    def problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        problems = [
            f"clip.{name} is {getattr(self, name)}; it has to be at least 1"
            for name in ("frames", "stride", "size", "per_decode")
            if getattr(self, name) < 1
        ]
        if not 1.0 <= self.resize <= 8.0:
            problems.append(f"clip.resize is {self.resize}; it has to be between 1 (nothing is left to crop) and 8")
        elif not problems and self.bytes > MOST_BYTES:
            side = self.resize_side
            problems.append(
                f"clip.frames, clip.size: a clip of {self.frames:,} frames of {side:,} x {side:,} pixels "
                f"takes {self.bytes / 1e9:,.1f} GB; it may take {MOST_BYTES / 1e9:.1f}"
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            problems.append(f"clip.fps is {self.fps}; it has to be above 0 and at most 1000 frames a second")
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            problems.append(
                f"clip.area is {self.area}; it must be two fractions of the picture, ascending, above 0 and up to 1"
            )
        if not 0 < self.aspect[0] <= self.aspect[1]:
            problems.append(f"clip.aspect is {self.aspect}; it must be two aspect ratios, ascending, above 0")
        problems += [
            f"clip.{name} is {getattr(self, name)}; it has to be a probability"
            for name in ("jitter", "grayscale")
            if not 0 <= getattr(self, name) <= 1
        ]
        return problems


Crop = tuple[float, float, float, float]
"""top, left, height, width in pixels of a window; whole numbers except for a random-size crop"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip before crop and flip, in a square window of R x R pixels.

    The window is the smallest one of the resized frames that surely holds the crop; for a random-size crop it is the
    whole picture, squeezed into the square.
    """

    index: int
    """global sample index"""
    name: str
    """file path (with the frames of its stretch, where a video is cut in time) or "synthetic/123", for messages"""
    video_tchw: Tensor
    """uint8 [T, 3, R, R], R = clip.resize_side"""
    crop: Crop
    """what the model will see of the window"""
    flip: bool
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """those of the source, by name: int64 [] for a class, float32 [] for a number, float32 [T, R, R] for a map"""
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
    crop_b4: Tensor
    """float32 [B, 4]: top, left, height, width"""
    flip_b: Tensor
    """bool [B]"""
    size: int
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """int64 [B], float32 [B] or float32 [B, T, R, R], by name"""
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
            crop_b4=move(self.crop_b4),
            flip_b=move(self.flip_b),
            size=self.size,
            targets={name: move(target) for name, target in self.targets.items()},
            skipped=self.skipped,
        )

    def slice(self, start: int, stop: int, step: int = 1) -> Batch:
        """Every `step`-th of clips start..stop-1 as a batch of their own (views); `skipped` stays with the first."""
        chosen = slice(start, stop, step)
        return Batch(
            index_b=self.index_b[chosen],
            names=self.names[chosen],
            video_btchw=self.video_btchw[chosen],
            crop_b4=self.crop_b4[chosen],
            flip_b=self.flip_b[chosen],
            size=self.size,
            targets={name: target[chosen] for name, target in self.targets.items()},
            skipped=self.skipped if start == 0 else (),
        )


def collate(samples: Sequence[Sample], size: int, video_btchw: Tensor | None = None) -> Batch:
    """Samples as a batch; `size` is the side of the crop, `ClipConfig.size`.

    Pixels are copied into a new tensor, but where `video_btchw` holds them already.
    """
    return Batch(
        index_b=torch.tensor([sample.index for sample in samples]),
        names=tuple(sample.name for sample in samples),
        video_btchw=torch.stack([sample.video_tchw for sample in samples]) if video_btchw is None else video_btchw,
        crop_b4=torch.tensor([sample.crop for sample in samples], dtype=torch.float32),
        flip_b=torch.tensor([sample.flip for sample in samples]),
        size=size,
        targets={name: torch.stack([sample.targets[name] for sample in samples]) for name in samples[0].targets},
        skipped=tuple(entry for sample in samples for entry in sample.skipped),
    )


@runtime_checkable
class Source(Protocol):
    """Where clips come from: picklable, cheap to construct, and a pure function of (seed, global sample index).

    A group of samples has candidates 0, 1, ...: a video that cannot be used is replaced by the next one.
    """

    clip: ClipConfig

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of what was found unusable before the first sample."""
        ...

    @property
    def targets(self) -> Mapping[str, Kind]:
        """What every sample carries, by name."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short text that differs where the clips do, for reasons other than their shape and the seed."""
        ...

    def __len__(self) -> int:
        """Number of videos."""
        ...

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The `clip.per_decode` clips of a group, the same on any machine, worker and process.

        Group g are the global sample indices g * per_decode and on. Its clips are of the first usable candidate from
        number `attempt` on. Raises LayerlockError when there is none.
        """
        ...

    def name(self, index: int, attempt: int = 0) -> str:
        """What candidate `attempt` of a sample is called, without decoding."""
        ...

    def video_name(self, video: int) -> str:
        """What a video is called, by its position from 0, without decoding."""
        ...

    def view(self, video: int) -> Sample:
        """The middle clip of a video, by its position from 0, cut in the centre and not flipped. Raises
        UnreadableVideo.
        """
        ...
