"""A data set looked at once: one clip of every video, the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from layerlock.data.clips import ClipConfig, Sample, Source
from layerlock.data.decode.video import UnreadableVideo
from layerlock.data.targets import Kind, unknown


class Views:
    """A source whose sample `i` is the middle clip of video `numbers[i]` of another source, cut in the centre.

    Without `numbers` it is that of video `i`. A video that cannot be decoded after all gives a black clip that names it
    in `skipped`: whoever goes through a data set leaves it out and says so.
    """

    def __init__(self, source: Source, numbers: Sequence[int] | None = None) -> None:
        self.source = source
        self.clip: ClipConfig = replace(source.clip, per_decode=1)
        self.numbers: Sequence[int] = range(len(source)) if numbers is None else tuple(numbers)

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """As the source's."""
        return self.source.rejected

    @property
    def fingerprint(self) -> str:
        """As the source's."""
        return self.source.fingerprint

    @property
    def targets(self) -> Mapping[str, Kind]:
        """As the source's; unknown of a black clip."""
        return self.source.targets

    def __len__(self) -> int:
        return len(self.numbers)

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The view at position `group`, counted around; the only other candidate is a black clip of the same name."""
        if attempt:
            return [self._blank(group, ())]
        try:
            return [replace(self.source.view(self._video(group)), index=group)]
        except UnreadableVideo as error:
            return [self._blank(group, ((self.name(group), error.reason),))]

    def name(self, index: int, attempt: int = 0) -> str:
        """What the video of a sample is called."""
        return self.source.video_name(self._video(index))

    def video_name(self, video: int) -> str:
        """The same."""
        return self.name(video)

    def view(self, video: int) -> Sample:
        """The same as the sample."""
        return self.samples(video)[0]

    def _video(self, index: int) -> int:
        return self.numbers[index % len(self.numbers)]

    def _blank(self, index: int, skipped: tuple[tuple[str, str], ...]) -> Sample:
        clip = self.clip
        return Sample(
            index=index,
            name=self.name(index),
            video_tchw=torch.zeros(clip.frames, 3, clip.resize_side, clip.resize_side, dtype=torch.uint8),
            crop=(0, 0, clip.size, clip.size),
            flip=False,
            targets={
                name: unknown(kind, frames=clip.frames, side=clip.resize_side) for name, kind in self.targets.items()
            },
            skipped=skipped,
        )
