"""Every clip of long videos, one after the other, with the time of each."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import NamedTuple

from layerlock.data import ClipConfig, Sample, Views
from layerlock.data.decode import frame_times
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.pool import Failure, run_in_processes

READ_SECONDS = 240.0
"""a file whose packets take longer to read is rejected"""

TOGETHER = (8, 4, 2, 1)
"""clips of a video that are decoded together, the first that `together` allows"""
MOST_FILLERS = 0.2
"""share of the samples that may hold no clip"""


class Window(NamedTuple):
    """A clip of a video: where it is cut (`Cut.start`), and when it begins and ends, in seconds of the file."""

    start: float
    begin: float
    end: float


def windows(video: VideoInfo, clip: ClipConfig, hop: float | None = None) -> list[Window]:
    """The consecutive clips of a video, one every `hop` seconds; None: each begins where the one before ends.

    The last clip ends with the video, and so can overlap the one before. With a hop no longer than the clip every frame
    is on display within some window. A video that is shorter than a clip has one. Raises UnreadableVideo.
    """
    time_n, fps, cut = frame_times(video), video.fps, clip.cut(0)
    found: dict[float, Window] = {}
    for first in _first_frames(cut, time_n, fps, video.seconds, hop):
        # half a frame before its first frame, but after the frame before that
        bound = time_n[first] - 0.5 / fps
        if first:
            bound = max(bound, (time_n[first - 1] + time_n[first]) / 2)
        start = round(bound * fps + 0.5, 6)
        begin, end = replace(cut, start=start).window(time_n, fps, video.seconds)
        # near the end of the video clips by time can be moved back to the same moment
        found.setdefault(begin, Window(start, video.with_gaps(begin), video.with_gaps(end)))
    return list(found.values())


def _first_frames(cut: Cut, time_n: Sequence[float], fps: float, end: float, hop: float | None) -> list[int]:
    """The frames that the clips begin with, rising."""

    def shown_from(moment: float, grace: float) -> int:
        return min(bisect.bisect_left(time_n, moment - grace / fps), len(time_n) - 1)

    if cut.seconds is None:
        length = cut.frames * cut.stride
        last = max(0, len(time_n) - length)
        if hop is None:
            return [*range(0, last, length), last]
    else:
        last, hop = shown_from(end - cut.frames * cut.seconds, 0.01), hop or cut.frames * cut.seconds
    firsts = takewhile(lambda first: first < last, (shown_from(number * hop, 0.5) for number in count()))
    return sorted({*firsts, last})


@dataclass(frozen=True)
class _WindowsOf:
    """What a process does: the windows of the video at a position, or why there are none."""

    videos: Sequence[VideoInfo]
    clip: ClipConfig
    hop: float | None

    def __call__(self, video: int) -> list[Window] | str:
        try:
            return windows(self.videos[video], self.clip, self.hop)
        except UnreadableVideo as error:
            return error.reason


def all_windows(
    source: FolderSource, hop: float | None, *, workers: int, progress: Callable[[int, int], None]
) -> tuple[dict[int, list[Window]], dict[str, str]]:
    """The windows of each video of a source, by its position, and why which videos have none."""
    found: dict[int, list[Window]] = {}
    lost: dict[str, str] = {}
    task, numbers = _WindowsOf(source.index.videos, source.clip, hop), range(len(source))
    with closing(run_in_processes(task, numbers, workers=workers, seconds=READ_SECONDS)) as results:
        for video, result in enumerate(results):
            if isinstance(result, list):
                found[video] = result
            else:
                lost[source.video_name(video)] = result.reason if isinstance(result, Failure) else result
            progress(video + 1, len(source))
    return found, lost


def together(clips_v: Sequence[int], batch: int) -> int:
    """How many clips to decode together, where videos have `clips_v` of them: a divisor of `batch`."""
    most = sum(clips_v) / (1 - MOST_FILLERS)
    return next(
        size
        for size in TOGETHER
        if batch % size == 0 and (size == 1 or sum(-(-n // size) for n in clips_v) * size <= most)
    )


@dataclass(frozen=True)
class _Group:
    """Clips that are decoded together: of which video, the number of the first one in it, and their windows."""

    video: int
    first: int
    windows: Sequence[Window]


class ConsecutiveViews(Views):
    """As `Views`, with a sample for each of the windows of some videos of a source.

    A group of samples is of one video, `per_decode` of them. Where fewer are left, the rest are `fillers`, black and of
    no clip.
    """

    def __init__(self, source: FolderSource, windows_of: Mapping[int, Sequence[Window]], per_decode: int) -> None:
        super().__init__(source, tuple(windows_of))
        self.folder = source
        self.clip = replace(source.clip, per_decode=per_decode)
        self.groups = [
            _Group(video, first, own[first : first + per_decode])
            for video, own in windows_of.items()
            for first in range(0, len(own), per_decode)
        ]

    def __len__(self) -> int:
        return len(self.groups) * self.clip.per_decode

    @property
    def fillers(self) -> frozenset[int]:
        """The samples that are no clip."""
        return frozenset(index for index in range(len(self)) if self.window(index) is None)

    def video(self, index: int) -> int:
        """The position in the source of the video of a sample."""
        return self._place(index)[0].video

    def window(self, index: int) -> Window | None:
        """When the clip of a sample is; None of a filler."""
        group, place = self._place(index)
        return group.windows[place] if place < len(group.windows) else None

    def name(self, index: int, attempt: int = 0) -> str:
        """The video of a sample, and which clip of it that is, counted from 1, with its seconds."""
        (group, place), window = self._place(index), self.window(index)
        path = self.folder.video_name(group.video)
        return f"{path}, clip {group.first + place + 1} ({window.begin:.2f} to {window.end:.2f} s)" if window else path

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        """The clips at position `group`, counted around; a black one for each that cannot be decoded, and for all of
        them where that has cost a process.
        """
        indices = range(group * self.clip.per_decode, (group + 1) * self.clip.per_decode)
        chosen, _ = self._place(indices[0])
        clips, fillers = indices[: len(chosen.windows)], indices[len(chosen.windows) :]
        if attempt:  # the loader says why of the first one
            why = f"it was decoded together with {self.name(clips[0])}"
            made = [
                self._blank(index, ((self.name(index), why),) if place else ()) for place, index in enumerate(clips)
            ]
        else:
            made = self._decoded(chosen.video, [window.start for window in chosen.windows], clips)
        return [*made, *(self._blank(index, ()) for index in fillers)]

    def _decoded(self, video: int, starts: Sequence[float], indices: Sequence[int]) -> list[Sample]:
        try:
            samples = self.folder.views(video, starts)
        except UnreadableVideo as error:
            if len(indices) == 1:
                return [self._blank(indices[0], ((self.name(indices[0]), error.reason),))]
            alone = (self._decoded(video, [start], [index]) for start, index in zip(starts, indices, strict=True))
            return [sample for samples in alone for sample in samples]
        return [
            replace(sample, index=index, name=self.name(index)) for sample, index in zip(samples, indices, strict=True)
        ]

    def _place(self, index: int) -> tuple[_Group, int]:
        group, place = divmod(index, self.clip.per_decode)
        return self.groups[group % len(self.groups)], place
