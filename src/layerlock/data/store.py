"""Decoded frames of a small data set, kept at the size in which clips are cut: each video is decoded once for a run."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from itertools import accumulate
from multiprocessing import reduction
from typing import Any

import numpy as np

from layerlock.data.decode import read_whole
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo

LONGEST = 4_096
"""frames of a video, at most: nobody should wait long for the first clip of it"""

_NOT_YET, _LEFT = 0, -1
"""in place of a number of frames: not asked for so far; to be decoded clip by clip"""

_WORD = 8


class FrameStore:
    """Frames of videos in an unnamed file that processes share; a killed run leaves nothing behind.

    A video is decoded whole when the first clip of it is asked for, by whichever process that is; should two begin at
    once, they write the same bytes. What cannot be kept (a video longer than `LONGEST`, or damaged somewhere that
    no player conceals; a full disk) is left to be decoded clip by clip: the clips are the same either way.

    The file holds a number of frames for each video, and then for each video the times of its frames and the frames.
    """

    def __init__(self, videos: Sequence[VideoInfo], sizes: Sequence[tuple[int, int]]) -> None:
        """Room for `videos`, their pictures resized to `sizes` (height, width). Raises OSError for a full disk."""
        with tempfile.TemporaryFile(prefix="layerlock-") as file:
            self._attach(tuple(videos), tuple(sizes), os.dup(file.fileno()))
        _write(self._descriptor, 0, np.zeros(len(videos), np.int64))  # its blocks are there from now on

    def _attach(self, videos: tuple[VideoInfo, ...], sizes: tuple[tuple[int, int], ...], descriptor: int) -> None:
        self._videos, self._sizes, self._descriptor = videos, sizes, descriptor
        head = -(-len(videos) * _WORD // mmap.PAGESIZE) * mmap.PAGESIZE
        rooms = [room_for(video, size) for video, size in zip(videos, sizes, strict=True)]
        self._begins = list(accumulate(rooms, initial=head))
        os.ftruncate(descriptor, self._begins[-1])
        self._memory = mmap.mmap(descriptor, self._begins[-1], access=mmap.ACCESS_READ)
        self._count_v = np.frombuffer(self._memory, np.int64, count=len(videos))

    def read_clips(self, number: int, cuts: Sequence[Cut], *, size: tuple[int, int]) -> np.ndarray | None:
        """Clips of the video at a position, uint8 `[N, T, H, W, 3]`; None where it is not kept in that size."""
        if size != self._sizes[number]:
            return None
        if self._count_v[number] == _NOT_YET:
            self._keep(number)
        if self._count_v[number] == _LEFT:
            return None
        time_n, frame_nhwc = self._kept(number)
        places = [cut.places(time_n, self._videos[number].fps) for cut in cuts]
        return frame_nhwc[np.array(places)]

    def _keep(self, number: int) -> None:
        """Decodes a video and writes its frames, the number of them last.

        Until then it counts as left to its file, for all processes: nobody waits, and one that dies here harms nothing.
        """
        video, size, begin = self._videos[number], self._sizes[number], self._begins[number]
        self._mark(number, _LEFT)
        if not room_for(video, size):
            return
        try:
            time_n, frame_nhwc = read_whole(video, size=size, most=video.frames)
            _write(self._descriptor, begin, np.array(time_n))
            _write(self._descriptor, begin + video.frames * _WORD, frame_nhwc)
        except (UnreadableVideo, OSError):
            return
        self._mark(number, len(time_n))

    def _mark(self, number: int, count: int) -> None:
        _write(self._descriptor, number * _WORD, np.array([count], np.int64))

    def _kept(self, number: int) -> tuple[list[float], np.ndarray]:
        count, (height, width), begin = int(self._count_v[number]), self._sizes[number], self._begins[number]
        time_n = np.frombuffer(self._memory, np.float64, count=count, offset=begin)
        begin += self._videos[number].frames * _WORD
        frame_n = np.frombuffer(self._memory, np.uint8, count=count * height * width * 3, offset=begin)
        return time_n.tolist(), frame_n.reshape(count, height, width, 3)

    def __reduce__(self) -> tuple[Callable[..., FrameStore], tuple[Any, ...]]:
        return _attached, (self._videos, self._sizes, reduction.DupFd(self._descriptor))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def store_for(
    videos: Sequence[VideoInfo], sizes: Callable[[], Sequence[tuple[int, int]]], *, budget: int, openings: int
) -> FrameStore | None:
    """A store, where it pays: all videos fit into `budget` bytes, and are opened more than twice each.

    `sizes` gives the (height, width) that their pictures are resized to; it is not called for videos opened less often.
    """
    if openings <= 2 * len(videos):
        return None
    size_v = sizes()
    needed = sum(room_for(video, size) for video, size in zip(videos, size_v, strict=True))
    if needed > min(budget, shutil.disk_usage(tempfile.gettempdir()).free // 2):
        return None
    try:
        return FrameStore(videos, size_v)
    except OSError:
        return None


def room_for(video: VideoInfo, size: tuple[int, int]) -> int:
    """Bytes that a video takes in a store, its pictures resized to `size`; 0 where it is too long."""
    if video.frames > LONGEST:
        return 0
    room = video.frames * (_WORD + size[0] * size[1] * 3)
    return -(-room // _WORD) * _WORD


def _attached(videos: tuple[VideoInfo, ...], sizes: tuple[tuple[int, int], ...], descriptor: Any) -> FrameStore:
    store = FrameStore.__new__(FrameStore)
    store._attach(videos, sizes, descriptor.detach())
    return store


def _write(descriptor: int, begin: int, values: np.ndarray) -> None:
    rest = memoryview(np.ascontiguousarray(values).data).cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, begin)
        rest, begin = rest[written:], begin + written
