"""Clips of the videos of an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.augment import random_box
from layerlock.data.clips import ATTEMPTS, ClipConfig, Crop, Sample
from layerlock.data.decode import depth_place, read_clips, read_depth
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo
from layerlock.data.index import Index
from layerlock.data.index.cache import contents_of
from layerlock.data.order import videos_from
from layerlock.data.store import FrameStore
from layerlock.data.targets import Kind
from layerlock.errors import LayerlockError

MAPS = {"depth": read_depth}
"""what reads a target that has a number for every pixel"""


class FolderSource:
    """Clips of the videos of an index: each video once in an epoch, a random start, crop and flip for each clip.

    With `clip.per_decode` above one the video is opened once for that many clips, whose starts are drawn from one
    stretch of it: as long as that many clips one after the other, or the whole video where that is shorter.

    A video that cannot be decoded is replaced by the next one in the order of its epoch, and listed in
    `Sample.skipped`. `targets` are the names of those that samples carry: columns of the index, or `depth`, which not
    all videos have; LayerlockError for a name that is neither. `store` keeps decoded frames; the clips are the same
    without it. `stretches` are, for each video, the first frame of the part of it that clips are cut from, and the one
    after its last.
    """

    def __init__(
        self,
        index: Index,
        clip: ClipConfig,
        seed: int,
        *,
        targets: Sequence[str] = (),
        store: FrameStore | None = None,
        stretches: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.index = index
        self.stretches = stretches
        self.clip = clip
        self.seed = seed
        self.targets: dict[str, Kind] = {name: _kind(index, name) for name in targets}
        self.store = store

    def read_sizes(self) -> list[tuple[int, int]]:
        """(height, width) to which the pictures of each video are resized; random-size crops see them squeezed."""
        return [self._read_size(video) for video in self.index.videos]

    def _read_size(self, video: VideoInfo) -> tuple[int, int]:
        side = self.clip.resize_side
        return (side, side) if self.clip.area else video.resized(side)

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the files that were found unusable before the first sample."""
        return self.index.rejected

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the usable videos."""
        return self.index.fingerprint

    @cached_property
    def target_fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the targets: of columns their values, of maps the state of their files."""
        total = hashlib.blake2b(digest_size=8)
        for name, kind in self.targets.items():
            if kind == "map":
                facts = [contents_of(depth_place(video)) for video in self.index.videos]
                total.update(f"{name}\0{facts}\n".encode())
            else:
                total.update(f"{name}\0{self.index.targets[name]}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    def __len__(self) -> int:
        return len(self.index.videos)

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The clips of a group, of the first candidate from `attempt` on that can be decoded.

        Raises LayerlockError when there is none; candidates are at most `ATTEMPTS` videos, none of them twice.
        """
        skipped: list[tuple[str, str]] = []
        for video in islice(self._candidates(group), attempt, None):
            try:
                return self._random_clips_of(video, group, tuple(skipped))
            except UnreadableVideo as error:
                skipped.append((self.video_name(video), error.reason))
        tried = "\n".join(f"  - {path}: {reason}" for path, reason in skipped[:5])
        raise LayerlockError(
            f"{_videos(min(ATTEMPTS, len(self)))} in a row could not be used; "
            f"check that {self.index.root} is still there and can be read\n{tried}"
        )

    def name(self, index: int, attempt: int = 0) -> str:
        """What a candidate is called."""
        candidates = self._candidates(index // self.clip.per_decode)
        return self.video_name(next(islice(candidates, attempt, None)))

    def video_name(self, video: int) -> str:
        """What the video at a position of the index is called."""
        return video_name(self.index, video, self.stretches)

    def view(self, video: int, at: float = 0.5) -> Sample:
        """The middle clip of the video at a position of the index, cut in the centre, as it is; another one where `at`
        is not 0.5: 0 is the first, 1 the last. Raises UnreadableVideo.
        """
        begin, room = self._room(video)
        (sample,) = self.views(video, [begin + int(at * room)])
        return sample

    def views(self, video: int, starts: Sequence[float]) -> list[Sample]:
        """The same of several clips, by where each begins (`Cut.start`), from one decode."""
        count, size = len(starts), self.index.videos[video].resized(self.clip.resize_side)
        place = _Place.fixed((0.5, 0.5), size, self.clip)
        return self._clips_of(video, starts, size, [place] * count, [video] * count, [False] * count, ())

    def _candidates(self, group: int) -> Iterator[int]:
        """Positions of the videos that a group of samples may be of, in the order in which they are tried."""
        return videos_from(group, len(self), self.seed, ATTEMPTS)

    def _random_clips_of(self, video: int, group: int, skipped: tuple[tuple[str, str], ...]) -> list[Sample]:
        clip, chosen = self.clip, self.index.videos[video]
        indices = range(group * clip.per_decode, (group + 1) * clip.per_decode)
        u_n6 = [draws.uniform_of_one(self.seed, "clip", index, 6) for index in indices]
        starts = self._starts(video, group, [u[0] for u in u_n6])
        flips = [clip.flip and u[1] < 0.5 for u in u_n6]
        size = self._read_size(chosen)
        if clip.area is None:
            places = [_Place.fixed(u[2:4], size, clip) for u in u_n6]
        else:
            places = [_Place(0, 0, random_box(u[2:6], chosen.height, chosen.width, clip)) for u in u_n6]
        return self._clips_of(video, starts, size, places, indices, flips, skipped)

    def _room(self, video: int) -> tuple[int, int]:
        """The first frame at which a clip of a video can begin, and how many further ones there are."""
        chosen = self.index.videos[video]
        begin, end = (0, chosen.frames) if self.stretches is None else self.stretches[video]
        return begin, max(0, end - begin - self.clip.cut(0).span(chosen.fps))

    def _starts(self, video: int, group: int, u_n: Sequence[float]) -> list[int]:
        """First frames of the clips of a group, from a number in [0, 1) each."""
        first, room = self._room(video)
        stretch = min(room, (self.clip.per_decode - 1) * self.clip.cut(0).span(self.index.videos[video].fps))
        (at,) = draws.uniform_of_one(self.seed, "stretch", group, 1)
        begin = first + int(at * (room - stretch + 1))
        return [begin + int(u * (stretch + 1)) for u in u_n]

    def _clips_of(
        self,
        video: int,
        starts: Sequence[float],
        size: tuple[int, int],
        places: Sequence[_Place],
        indices: Sequence[int],
        flips: Sequence[bool],
        skipped: tuple[tuple[str, str], ...],
    ) -> list[Sample]:
        """Clips of one video, its pictures resized to `size`, each cut out at its place."""
        chosen, side = self.index.videos[video], self.clip.resize_side
        cuts = [self.clip.cut(start) for start in starts]
        video_nthwc = self._read(video, cuts, size)
        maps_nthw = {name: MAPS[name](chosen, cuts, size=size) for name, kind in self.targets.items() if kind == "map"}
        known = {name: self.index.targets[name].sample(video) for name in self.targets.keys() - maps_nthw.keys()}
        return [
            Sample(
                index=index,
                name=self.video_name(video),
                video_tchw=_tensor(place.window(video_nthwc[i], side).transpose(0, 3, 1, 2)),
                crop=place.crop,
                flip=flip,
                targets=known | {name: _tensor(place.window(x_nthw[i], side)) for name, x_nthw in maps_nthw.items()},
                skipped=() if i else skipped,
            )
            for i, (index, place, flip) in enumerate(zip(indices, places, flips, strict=True))
        ]

    def _read(self, video: int, cuts: Sequence[Cut], size: tuple[int, int]) -> np.ndarray:
        kept = self.store.read_clips(video, cuts, size=size) if self.store else None
        if kept is not None:
            return kept
        return read_clips(self.index.videos[video], cuts, size=size, backend=self.clip.backend).video_nthwc


def video_name(index: Index, row: int, stretches: Sequence[tuple[int, int]] | None) -> str:
    """The path of the video at a position and, where clips are cut from a stretch of it only, the first and last frame
    of that (from 0).
    """
    path = index.videos[row].path
    return path if stretches is None else f"{path}, frames {stretches[row][0]} to {stretches[row][1] - 1}"


def _kind(index: Index, name: str) -> Kind:
    """The kind of a target; a column goes before a map of the same name."""
    if name in index.targets:
        return index.targets[name].kind
    if name not in MAPS:
        raise LayerlockError(
            f"{index.root} ({index.layout}): there is no target {name}; there is: {', '.join([*index.targets, *MAPS])}"
        )
    return "map"


class _Place(NamedTuple):
    """Where a window begins in the resized picture, and its crop inside it."""

    top: int
    left: int
    crop: Crop

    @classmethod
    def fixed(cls, at: Sequence[float], size: tuple[int, int], clip: ClipConfig) -> _Place:
        """The place of a crop of fixed size, `at` (down, across) of the way from 0 to 1."""
        top, crop_y = _window(int(at[0] * (size[0] - clip.size + 1)), size[0], clip)
        left, crop_x = _window(int(at[1] * (size[1] - clip.size + 1)), size[1], clip)
        return cls(top, left, (crop_y, crop_x, clip.size, clip.size))

    def window(self, picture_thw: np.ndarray, side: int) -> np.ndarray:
        """The window of pictures `[T, H, W, ...]`, a view."""
        return picture_thw[:, self.top : self.top + side, self.left : self.left + side]


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _window(crop: int, length: int, clip: ClipConfig) -> tuple[int, int]:
    """(where the window begins, where the crop begins inside it) along one side of `length` pixels."""
    begin = min(max(crop - (clip.resize_side - clip.size) // 2, 0), length - clip.resize_side)
    return begin, crop - begin


def _videos(count: int) -> str:
    return "1 video" if count == 1 else f"{count} videos"
