"""What is known of a video, what is asked of its decoder, and which of its frames that means."""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerlock.data.decode.span import Span

IMAGES = "images"
"""the codec of a video that is a folder of pictures"""

SENS = "sens"
"""the codec, and the ending, of a scan of ScanNet"""

_LONGEST = 16
"""long side of a resized frame, at most this multiple of the short one"""


EXTENSIONS = frozenset(
    f".{ending}"
    for line in (
        "3gp asf avi divx f4v flv gif m2ts m4v mkv mov",
        "mp4 mpeg mpg mts mxf ogv sens ts vob webm wmv",
    )
    for ending in line.split()
)
"""lower-case endings of the files that are taken for videos"""


def has_video_ending(name: str) -> bool:
    """Whether a file's name ends like that of a video."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


class UnreadableVideo(Exception):
    """A file, or the wanted part of it, cannot be decoded. `reason` is one plain line without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video. Sizes are of the upright picture."""

    path: str
    """of a video in a shard, the shard's with the video's name in it"""
    frames: int
    """that a decode from the first byte shows; at least 1"""
    fps: float
    """frames per second; their average where the rate varies"""
    width: int
    height: int
    seconds: float
    """from the first frame to the end of the last one"""
    codec: str
    rotation: int
    """quarter turns, counter-clockwise, that make the decoded picture upright: 0 to 3"""
    mirrored: bool = False
    """whether it has to be mirrored, left to right, after these turns"""
    bytes: int = 0
    """size of the file; 0 for a folder of pictures"""
    seekable: bool = True
    """whether clips can be read from a key frame before them; else they are read from the first byte of the file on"""
    zero: int = 0
    """time of the first frame of a file that is seekable, in units of the stream's time base"""
    missing: tuple[int, ...] = ()
    """places at the rate of a seekable file that no frame has, rising: frames are counted as if there were no gaps"""
    times: tuple[float, ...] = ()
    """when each frame is shown, in seconds from the first one, of a file that is not seekable and has no even rate"""

    left_out: tuple[str, ...] = ()
    """of a folder of pictures: names of those in it that are no frames, each a single one beside a series"""
    span: Span | None = None
    """where its bytes are; None: in a file of its own"""

    def time_n(self) -> Sequence[float]:
        """When each frame is shown, in seconds from the first one, where frames are told by their number."""
        return self.times or [place / self.fps for place in range(self.frames)]

    def closed_up(self, seconds: float) -> float:
        """A moment in the file without the gaps before it."""
        if not self.missing:
            return seconds
        place = round(seconds * self.fps)
        return (place - bisect.bisect_left(self.missing, place)) / self.fps

    def with_gaps(self, seconds: float) -> float:
        """The moment in the file that `closed_up` makes `seconds` of."""
        place = math.floor(seconds * self.fps + 1e-6)
        return seconds + (self.place_with_gaps(place) - place) / self.fps

    def place_with_gaps(self, start: float) -> float:
        """The place of frame `start` where those that are missing count too."""
        passed = bisect.bisect_right(range(len(self.missing)), start, key=lambda i: self.missing[i] - i)
        return start + passed

    def resized(self, short_side: int) -> tuple[int, int]:
        """(height, width) with the shorter one `short_side`, in the video's proportions up to 16 to 1."""
        scale = short_side / min(self.height, self.width)
        longest = short_side * _LONGEST
        return min(longest, max(1, round(self.height * scale))), min(longest, max(1, round(self.width * scale)))


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A clip that is asked for: `frames` frames, `stride` shown frames apart, or `seconds` where that is given."""

    start: float
    """first frame, counted at the average frame rate: a moment, that is, where the rate varies"""
    frames: int
    stride: int
    seconds: float | None = None

    def span(self, fps: float) -> int:
        """Frames from the first to the last, both counted, in a video of `fps` frames a second."""
        if self.seconds is None:
            return (self.frames - 1) * self.stride + 1
        return math.ceil((self.frames - 1) * self.seconds * fps - 1e-6) + 1

    def too_long(self, time_n: Sequence[float], fps: float) -> bool:
        """Whether frames shown at these times (seconds, rising) hold less than the clip."""
        if self.seconds is None:
            return len(time_n) < self.span(fps)
        return time_n[-1] - time_n[0] < (self.frames - 1) * self.seconds

    def places(self, time_n: Sequence[float], fps: float) -> list[int]:
        """Which frames are the clip's, where frame i is shown from `time_n[i]` on (seconds, rising).

        The clip begins at the first frame shown at `start / fps` or later, half a frame's grace, or sooner where the
        end of the video would cut it short. By stride shown frames are counted from there; by time each frame of the
        clip is the one shown at its moment. Where the video is shorter than the clip its last frame is repeated.
        """
        last = len(time_n) - 1
        if self.seconds is None:
            first = min(self._first(time_n, fps), max(0, last + 1 - self.span(fps)))
            return [min(first + i * self.stride, last) for i in range(self.frames)]
        # a moment is moved on by a hundredth of a frame: timestamps are rounded
        begin = self._begin(time_n, fps, self.seconds) + 0.01 / fps
        return [bisect.bisect_right(time_n, begin + i * self.seconds) - 1 for i in range(self.frames)]

    def window(self, time_n: Sequence[float], fps: float, end: float) -> tuple[float, float]:
        """When the clip begins and when it ends, in a video with frames as for `places` that ends at `end`: a stride
        after its last frame, or at the end of the video.
        """
        places = self.places(time_n, fps)
        if self.seconds is None:
            after = places[-1] + self.stride
            return time_n[places[0]], time_n[after] if after < len(time_n) else end
        begin = self._begin(time_n, fps, self.seconds)
        return begin, min(begin + self.frames * self.seconds, end)

    def _first(self, time_n: Sequence[float], fps: float) -> int:
        """The frame that is shown at the start or next."""
        return min(bisect.bisect_left(time_n, (self.start - 0.5) / fps), len(time_n) - 1)

    def _begin(self, time_n: Sequence[float], fps: float, seconds: float) -> float:
        """The moment of a clip by time."""
        latest = max(time_n[0], time_n[-1] - (self.frames - 1) * seconds)
        return min(time_n[self._first(time_n, fps)], latest)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips of one video."""

    video_nthwc: np.ndarray
    """uint8 [N, T, H, W, 3], upright"""
    decoded: int
    """frames that were decoded for them"""
