"""A data set looked at once: one clip of every video, the same each time."""

from __future__ import annotations

import torch

from layerlock.data.clips import ClipConfig, Sample, Source
from layerlock.data.decode import UnreadableVideo


class Views:
    """A source whose sample `i` is the middle clip of video `i`, cut in the centre.

    A video that cannot be decoded after all gives a black clip that names it in `skipped`: whoever goes through a data
    set leaves it out and says so.
    """

    def __init__(self, source: Source, limit: int | None = None) -> None:
        self.source = source
        self.clip: ClipConfig = source.clip
        self.videos = len(source) if limit is None else min(limit, len(source))

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """As the source's."""
        return self.source.rejected

    def __len__(self) -> int:
        return self.videos

    def sample(self, index: int) -> Sample:
        """The view of video `index`, counted around."""
        try:
            return self.source.view(index % self.videos)
        except UnreadableVideo as error:
            blank = torch.zeros(self.clip.frames, 3, self.clip.margin, self.clip.margin, dtype=torch.uint8)
            lost = ((error.path, error.reason),)
            return Sample(index=index, name=error.path, video_tchw=blank, crop_y=0, crop_x=0, flip=False, skipped=lost)

    def view(self, video: int) -> Sample:
        """The same."""
        return self.sample(video)
