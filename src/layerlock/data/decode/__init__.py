"""What a video holds and what is in it, whichever decoder does the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerlock.data.decode import beside, images, pyav, scan, sens, torchcodec
from layerlock.data.decode.span import Span
from layerlock.data.decode.video import IMAGES, SENS, Clips, Cut, VideoInfo

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_FRAMES = 16
"""pictures of a folder or a scan that are decoded together"""


def probe(path: str, span: Span | None = None) -> VideoInfo:
    """Look into a video file, a folder of frames or a `span` of a shard, and decode its first frames.

    Raises UnreadableVideo.
    """
    if span is not None:
        return scan.probe(path, span)
    if os.path.isdir(images.folder_of(path)):
        return images.probe(path)
    return sens.probe(path) if path.lower().endswith(f".{SENS}") else scan.probe(path)


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int], backend: str = "pyav") -> Clips:
    """The clips `cuts` of one video, all of the same length, resized to `size` (height, width).

    The video is opened once, and what the clips share is decoded once. `backend` decodes files: "pyav" or "torchcodec".
    Raises UnreadableVideo.
    """
    if video.codec == IMAGES:
        return images.read_clips(video, cuts, size=size)
    if video.codec == SENS:
        return sens.read_clips(video, cuts, size=size)
    if backend == "torchcodec":
        return torchcodec.read_clips(video, cuts, size=size)
    return pyav.read_clips(video, cuts, size=size)


def read_whole(video: VideoInfo, *, size: tuple[int, int], most: int) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, in seconds, and all frames, uint8 `[F, H, W, 3]`, resized to `size` (height, width).

    Raises UnreadableVideo, also where there are more frames than `most`.
    """
    if video.codec == IMAGES:
        return images.read_whole(video, size=size, most=most)
    if video.codec == SENS:
        return sens.read_whole(video, size=size, most=most)
    return pyav.read_whole(video, size=size, most=most)


def frames_of(video: VideoInfo) -> Iterator[VideoFrame]:
    """The frames of a video, one after the other, not resized; those of a file are as they are decoded, not upright.

    Raises UnreadableVideo, at the latest after the last one.
    """
    import av

    if video.codec not in (IMAGES, SENS):
        yield from (frame for _, frame in pyav.frames_of(video))
        return
    size = video.height, video.width
    for begin in range(0, video.frames, _FRAMES):
        cut = Cut(start=begin, frames=min(_FRAMES, video.frames - begin), stride=1)
        for picture_hwc in read_clips(video, [cut], size=size).video_nthwc[0]:
            yield av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_hwc), format="rgb24")


def frame_times(video: VideoInfo) -> Sequence[float]:
    """When each frame is shown, in seconds from the first one, as clips count (`VideoInfo.missing`): the packets of a
    file are read, no frame is decoded. Raises UnreadableVideo.
    """
    return video.time_n() if video.codec in (IMAGES, SENS) else pyav.frame_times(video)


def depth_place(video: VideoInfo) -> str:
    """Where the depth of a video is: in a file beside it, or in the video itself, a folder of frames or a scan."""
    path = str(beside.depth_path(video.path))
    return path if os.path.exists(path) else video.path


def read_depth(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> np.ndarray:
    """Depth of the same clips: float32 metres `[N, T, H, W]`, 0 where nothing was measured.

    Raises UnreadableVideo where the video has none.
    """
    if video.codec == IMAGES:
        return images.read_depth(video, cuts, size=size)
    if video.codec == SENS:
        return sens.read_depth(video, cuts, size=size)
    return beside.read_depth(video, cuts, size=size)
