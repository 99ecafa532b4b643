"""Clips from a folder of video files."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from layerlock import draws
from layerlock.data.clips import ATTEMPTS, ClipConfig, Sample
from layerlock.data.decode import UnreadableVideo, VideoInfo, read_clip
from layerlock.data.index import Index
from layerlock.data.order import video_at
from layerlock.errors import LayerlockError


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

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the usable videos: their places below the root, lengths and order."""
        total = hashlib.blake2b(digest_size=8)
        for video in self.index.videos:
            place = video.path.removeprefix(self.index.root)
            total.update(f"{place}\0{video.frames}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    def __len__(self) -> int:
        return len(self.index.videos)

    def sample(self, index: int, attempt: int = 0) -> Sample:
        """The clip of a global sample index, of the first candidate from `attempt` on that can be decoded.

        Raises LayerlockError when there is none; candidates are at most `ATTEMPTS` videos, none of them twice.
        """
        candidates = self._candidates(index)
        skipped: list[tuple[str, str]] = []
        for video in candidates[attempt:]:
            try:
                return self._random_clip_of(video, index, tuple(skipped))
            except UnreadableVideo as error:
                skipped.append((error.path, error.reason))
        tried = "\n".join(f"  - {path}: {reason}" for path, reason in skipped[:5])
        raise LayerlockError(
            f"{_videos(len(candidates))} in a row could not be decoded; is {self.index.root} still there and whole?\n"
            + tried
        )

    def name(self, index: int, attempt: int = 0) -> str:
        """The path of a candidate."""
        return self._candidates(index)[attempt].path

    def video_name(self, video: int) -> str:
        """The path of the video at a position of the index."""
        return self.index.videos[video].path

    def _candidates(self, index: int) -> list[VideoInfo]:
        videos = self.index.videos
        others = draws.bits(self.seed, "replacement", torch.tensor([index]), ATTEMPTS - 1)[0] % len(videos)
        numbers = dict.fromkeys((video_at(index, len(videos), self.seed), *others.tolist()))
        return [videos[number] for number in numbers]

    def view(self, video: int) -> Sample:
        """The middle clip of the video at a position of the index, cut in the centre, as it is. Raises
        UnreadableVideo.
        """
        chosen = self.index.videos[video]
        start = max(0, (chosen.frames - self.clip.span) // 2)
        return self._clip_of(chosen, video, start, (0.5, 0.5), flip=False, skipped=())

    def _random_clip_of(self, video: VideoInfo, index: int, skipped: tuple[tuple[str, str], ...]) -> Sample:
        at_start, at_y, at_x, at_flip = draws.uniform(self.seed, "clip", torch.tensor([index]), 4)[0].tolist()
        start = int(at_start * max(1, video.frames - self.clip.span + 1))
        return self._clip_of(video, index, start, (at_y, at_x), flip=self.clip.flip and at_flip < 0.5, skipped=skipped)

    def _clip_of(
        self,
        video: VideoInfo,
        index: int,
        start: int,
        place: tuple[float, float],
        *,
        flip: bool,
        skipped: tuple[tuple[str, str], ...],
    ) -> Sample:
        """The clip from frame `start` on; `place` is where in the picture the crop is, (down, across) from 0 to 1."""
        clip = self.clip
        frame_thwc = read_clip(video, start=start, frames=clip.frames, stride=clip.stride, short_side=clip.margin)
        _, height, width, _ = frame_thwc.shape
        top, crop_y = _window(int(place[0] * (height - clip.size + 1)), height, clip)
        left, crop_x = _window(int(place[1] * (width - clip.size + 1)), width, clip)
        window_thwc = frame_thwc[:, top : top + clip.margin, left : left + clip.margin]
        return Sample(
            index=index,
            name=video.path,
            video_tchw=torch.from_numpy(np.ascontiguousarray(window_thwc.transpose(0, 3, 1, 2))),
            crop_y=crop_y,
            crop_x=crop_x,
            flip=flip,
            label=self._label_of[Path(video.path).parent.name] if self.classes else -1,
            skipped=skipped,
        )


def _videos(count: int) -> str:
    return "1 video" if count == 1 else f"{count} videos"


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
