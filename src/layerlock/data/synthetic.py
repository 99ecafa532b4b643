"""The synthetic world as clips: rendered on demand, with an action as label and metric depth for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.augment import random_box
from layerlock.data.clips import ClipConfig, Crop, Sample
from layerlock.data.motion import ACTIONS, mirrored
from layerlock.data.render import render
from layerlock.data.scene import build_scene
from layerlock.data.targets import LABEL, Kind
from layerlock.errors import LayerlockError

__all__ = ["ACTIONS", "RATE", "SyntheticClip", "SyntheticSource", "render_clip"]

RATE = 16.0
"""Frames per second at which the world is meant to be seen: 16 frames then last one second."""
FINGERPRINT = "synthetic-1"
"""To be counted up whenever the world looks different from before."""


@dataclass(frozen=True, kw_only=True)
class SyntheticClip:
    """A rendered clip."""

    video_tchw: Tensor  # uint8 [T, 3, H, W]
    depth_thw: Tensor  # float32 [T, H, W], metres along the camera's axis
    label: int  # position in ACTIONS


def render_clip(
    seed: int, index: int, *, frames: int = 16, height: int = 64, width: int = 64, fps: float = RATE
) -> SyntheticClip:
    """Renders scene `index` of the world `seed`: `frames` frames, `1 / fps` seconds apart, about the scene's middle."""
    time_t = (torch.arange(frames, dtype=torch.float64) - (frames - 1) / 2) / fps
    scene = build_scene(seed, index, time_t)
    rgb_tchw, depth_thw = render(scene, height, width)
    video_tchw = (rgb_tchw * 255 + 0.5).clamp_(0, 255).to(torch.uint8).contiguous()
    return SyntheticClip(video_tchw=video_tchw, depth_thw=depth_thw.float(), label=scene.label)


class SyntheticSource:
    """The world as a source of clips: sample `i` is scene `i % videos` of the world `seed`, at its own crop and flip.

    The world has no frame rate of its own: whatever `clip.stride`, the frames of a clip are 1/16 s apart, so that 16 of
    them hold the whole action, or 1 / `clip.fps` s. Each clip is of a scene of its own, also within a group. A flipped
    clip's label is that of its mirror image (left and right change places). `targets` are `label` and `depth`, or none;
    LayerlockError for another.
    """

    def __init__(self, *, clip: ClipConfig, seed: int, videos: int = 1 << 31, targets: Sequence[str] = ()) -> None:
        self.clip = clip
        self.seed = seed
        self.videos = videos
        self.targets: dict[str, Kind] = {name: _kind(name) for name in targets}
        self.rejected: tuple[tuple[str, str], ...] = ()
        self.fingerprint = FINGERPRINT

    def __len__(self) -> int:
        return self.videos

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The clips of a group, each of its own scene.

        No scene is unusable: all candidates are the same.
        """
        first = group * self.clip.per_decode
        return [self._random_clip(index) for index in range(first, first + self.clip.per_decode)]

    def name(self, index: int, attempt: int = 0) -> str:
        """The scene of a sample."""
        return self.video_name(index % self.videos)

    def video_name(self, video: int) -> str:
        """As in `Sample.name`."""
        return f"synthetic/{video}"

    def view(self, video: int) -> Sample:
        """Scene `video`, cut in the centre, as it is."""
        begin = (self.clip.resize_side - self.clip.size + 1) // 2
        return self._cut(video, video, (begin, begin, self.clip.size, self.clip.size), flip=False)

    def _random_clip(self, index: int) -> Sample:
        down, across, coin, *more = draws.uniform(self.seed, "clip", torch.tensor([index]), 5)[0].tolist()
        side, places = self.clip.resize_side, self.clip.resize_side - self.clip.size + 1
        if self.clip.area is None:
            crop: Crop = (int(down * places), int(across * places), self.clip.size, self.clip.size)
        else:
            crop = random_box((down, across, *more), side, side, self.clip)
        return self._cut(index % self.videos, index, crop, flip=self.clip.flip and coin < 0.5)

    def _cut(self, video: int, index: int, crop: Crop, *, flip: bool) -> Sample:
        side = self.clip.resize_side
        rate = self.clip.fps or RATE
        clip = render_clip(self.seed, video, frames=self.clip.frames, height=side, width=side, fps=rate)
        label = torch.tensor(mirrored(clip.label) if flip else clip.label)
        known = {LABEL: label, "depth": clip.depth_thw}
        return Sample(
            index=index,
            name=self.video_name(video),
            video_tchw=clip.video_tchw,
            crop=crop,
            flip=flip,
            targets={name: known[name] for name in self.targets},
        )


def _kind(name: str) -> Kind:
    kinds: dict[str, Kind] = {LABEL: "class", "depth": "map"}
    if name not in kinds:
        raise LayerlockError(f"the synthetic world has no target {name}; it has label and depth")
    return kinds[name]
