"""Clips that are the same each time: what frozen encoders are shown of a video when nothing is drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layerlock.data import ClipConfig, Sample, Views
from layerlock.data.decode.video import UnreadableVideo
from layerlock.data.folder import FolderSource
from layerlock.data.order import video_at
from layerlock.model.encoder import ClipShape

RESIZE = 239 / 224
"""short side before the crop, as a multiple of the clip's size (LayerLock A.4)"""


def plain_clip(shape: ClipShape, *, stride: int | None = None, resize: float = RESIZE) -> ClipConfig:
    """Clips of an encoder's shape without anything random, cut in the centre; `stride` takes others than its own."""
    return ClipConfig(
        frames=shape.frames,
        stride=stride or shape.stride,
        fps=None if stride else shape.fps,
        size=shape.size,
        resize=resize,
        flip=False,
    )


class SpreadViews(Views):
    """As `Views`, with `views` equally spaced clips of each video: sample `i` is clip `i % views` of one of them."""

    def __init__(self, source: FolderSource, views: int, numbers: Sequence[int] | None = None) -> None:
        super().__init__(source, numbers)
        self.folder, self.views = source, views

    def __len__(self) -> int:
        return len(self.numbers) * self.views

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The view at position `group`, counted around; a black clip where it cannot be decoded."""
        if attempt:
            return [self._blank(group, ())]
        at = (group % self.views) / (self.views - 1) if self.views > 1 else 0.5
        try:
            return [replace(self.folder.view(self._video(group), at), index=group)]
        except UnreadableVideo as error:
            return [self._blank(group, ((self.name(group), error.reason),))]

    def _video(self, index: int) -> int:
        return self.numbers[index // self.views % len(self.numbers)]


class RepeatedViews(SpreadViews):
    """An endless stream of the middle clips of a source, every epoch in a new order, that of `FolderSource`."""

    def __init__(self, source: FolderSource, seed: int) -> None:
        super().__init__(source, 1)
        self.seed = seed

    def _video(self, index: int) -> int:
        return video_at(index, len(self.numbers), self.seed)
