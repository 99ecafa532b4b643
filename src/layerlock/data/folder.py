"""Clips from a folder of video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from layerlock import draws
from layerlock.data.clips import ClipConfig, Sample
from layerlock.data.decode import UnreadableVideo, VideoInfo, read_clip
from layerlock.data.index import Index
from layerlock.data.order import video_at
from layerlock.errors import LayerlockError

ATTEMPTS = 20
"""videos tried for one sample before giving up"""


class FolderSource:
    """Clips of the videos of an index: each video once in an epoch, a random start, window, crop and flip each time.

    A video that cannot be decoded is replaced by another one, drawn from the seed and the sample index alone, and
    listed in `Sample.skipped`. Labels are class folders (see `classes`), or -1 where the videos are not in such.
    """

    def __init__(self, index: Index, clip: ClipConfig, seed: int) -> None:
        self.index = index
        self.clip = clip
        self.seed = seed
        self.classes = _class_folders(index)
        self._label_of = {name: label for label, name in enumerate(self.classes)}

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the files that were found unusable before the first sample."""
        return self.index.rejected

    def __len__(self) -> int:
        return len(self.index.videos)

    def sample(self, index: int) -> Sample:
        """The clip of a global sample index. Raises LayerlockError when `ATTEMPTS` videos in a row are unusable."""
        skipped: list[tuple[str, str]] = []
        for video in self._candidates(index):
            try:
                return self._clip_of(video, index, tuple(skipped))
            except UnreadableVideo as error:
                skipped.append((error.path, error.reason))
        tried = "\n".join(f"  - {path}: {reason}" for path, reason in skipped[:5])
        raise LayerlockError(
            f"{len(skipped)} videos in a row could not be decoded; is {self.index.root} still there and whole?\n{tried}"
        )

    def _candidates(self, index: int) -> list[VideoInfo]:
        videos = self.index.videos
        others = draws.bits(self.seed, "replacement", torch.tensor([index]), ATTEMPTS - 1)[0] % len(videos)
        return [videos[number] for number in (video_at(index, len(videos), self.seed), *others.tolist())]

    def _clip_of(self, video: VideoInfo, index: int, skipped: tuple[tuple[str, str], ...]) -> Sample:
        clip = self.clip
        at_start, at_y, at_x, at_flip = draws.uniform(self.seed, "clip", torch.tensor([index]), 4)[0].tolist()
        start = int(at_start * max(1, video.frames - clip.span + 1))
        frame_thwc = read_clip(video, start=start, frames=clip.frames, stride=clip.stride, short_side=clip.margin)
        top, crop_y = _window(int(at_y * (frame_thwc.shape[1] - clip.size + 1)), frame_thwc.shape[1], clip)
        left, crop_x = _window(int(at_x * (frame_thwc.shape[2] - clip.size + 1)), frame_thwc.shape[2], clip)
        window_thwc = frame_thwc[:, top : top + clip.margin, left : left + clip.margin]
        return Sample(
            index=index,
            name=video.path,
            video_tchw=torch.from_numpy(np.ascontiguousarray(window_thwc.transpose(0, 3, 1, 2))),
            crop_y=crop_y,
            crop_x=crop_x,
            flip=clip.flip and at_flip < 0.5,
            label=self._label_of[Path(video.path).parent.name] if self.classes else -1,
            skipped=skipped,
        )


def _window(crop: int, length: int, clip: ClipConfig) -> tuple[int, int]:
    """(where the window begins, where the crop begins inside it) along one side of `length` pixels."""
    begin = min(max(crop - (clip.margin - clip.size) // 2, 0), length - clip.margin)
    return begin, crop - begin


def _class_folders(index: Index) -> tuple[str, ...]:
    """Names of the class folders, sorted, where every video lies in a folder directly below the root."""
    folders = {Path(video.path).parent for video in index.videos}
    if any(folder.parent != Path(index.root) for folder in folders):
        return ()
    return tuple(sorted(folder.name for folder in folders))
