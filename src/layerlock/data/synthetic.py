"""The synthetic world as clips: rendered on demand, with an action as label and metric depth for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.augment import random_box
from layerlock.data.clips import ClipConfig, Crop, Sample
from layerlock.data.motion import ACTIONS, mirrored
from layerlock.data.render import render
from layerlock.data.scene import build_scenes
from layerlock.data.targets import LABEL, Kind
from layerlock.errors import LayerlockError

__all__ = ["ACTIONS", "RATE", "SyntheticClip", "SyntheticSource", "render_clip"]

RATE = 16.0
"""Frames per second at which the world is meant to be seen: 16 frames then last one second."""
FINGERPRINT = "synthetic-1"
"""To be counted up whenever the world looks different from before."""
_PIXELS_TOGETHER = 3 << 17
"""in all frames of the clips that are drawn at once; more do not stay in a processor's cache"""


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
    return next(render_clips(seed, [index], frames=frames, height=height, width=width, fps=fps))


def render_clips(
    seed: int, indices: Sequence[int], *, frames: int = 16, height: int = 64, width: int = 64, fps: float = RATE
) -> Iterator[SyntheticClip]:
    """The clips of `render_clip` for several scenes, one after the other, at less cost: scenes are built together, and
    small ones drawn together.
    """
    time_t = (torch.arange(frames, dtype=torch.float64) - (frames - 1) / 2) / fps
    scenes = build_scenes(seed, torch.tensor(indices), time_t)
    together = max(1, _PIXELS_TOGETHER // (frames * height * width))
    for begin in range(0, len(indices), together):
        part = scenes.part(begin, begin + together)
        video_btchw, depth_bthw = render(part, height, width)
        for video_tchw, depth_thw, label in zip(video_btchw, depth_bthw, part.label_b.tolist(), strict=True):
            # memory of its own: who keeps a clip does not keep those that were drawn with it
            yield SyntheticClip(video_tchw=video_tchw.clone(), depth_thw=depth_thw.float(), label=label)


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
        indices = range(first, first + self.clip.per_decode)
        clips = self._render([index % self.videos for index in indices])
        return [self._cut(index, clip, *self._random_cut(index)) for index, clip in zip(indices, clips, strict=True)]

    def name(self, index: int, attempt: int = 0) -> str:
        """The scene of a sample."""
        return self.video_name(index % self.videos)

    def video_name(self, video: int) -> str:
        """As in `Sample.name`."""
        return f"synthetic/{video}"

    def view(self, video: int) -> Sample:
        """Scene `video`, cut in the centre, as it is."""
        begin = (self.clip.resize_side - self.clip.size + 1) // 2
        return self._cut(video, next(self._render([video])), (begin, begin, self.clip.size, self.clip.size), False)

    def _render(self, videos: Sequence[int]) -> Iterator[SyntheticClip]:
        side, rate = self.clip.resize_side, self.clip.fps or RATE
        return render_clips(self.seed, videos, frames=self.clip.frames, height=side, width=side, fps=rate)

    def _random_cut(self, index: int) -> tuple[Crop, bool]:
        down, across, coin, *more = draws.uniform_of_one(self.seed, "clip", index, 5)
        side, places = self.clip.resize_side, self.clip.resize_side - self.clip.size + 1
        flip = self.clip.flip and coin < 0.5
        if self.clip.area is None:
            return (int(down * places), int(across * places), self.clip.size, self.clip.size), flip
        return random_box((down, across, *more), side, side, self.clip), flip

    def _cut(self, index: int, clip: SyntheticClip, crop: Crop, flip: bool) -> Sample:
        label = torch.tensor(mirrored(clip.label) if flip else clip.label)
        known = {LABEL: label, "depth": clip.depth_thw}
        return Sample(
            index=index,
            name=self.name(index),
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
