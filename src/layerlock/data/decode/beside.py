"""Depth of a video file in an .npz file that lies in the folder `depth` beside the folder of its class.

ROOT/<class>/<name>.mp4 has its depth in ROOT/depth/<class>/<name>.npz: `depth_mm`, uint16 [T, H, W], millimetres.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from layerlock.data.decode.images import nearest
from layerlock.data.decode.picture import upright
from layerlock.data.decode.video import Cut, UnreadableVideo, VideoInfo

ARRAY = "depth_mm"


def depth_path(video_path: Path | str) -> Path:
    """Where the depth of a video file lies."""
    video = Path(video_path)
    return video.parent.parent / "depth" / video.parent.name / f"{video.stem}.npz"


def read_depth(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> np.ndarray:
    """Depth of clips of a video file: float32 metres `[N, T, H, W]`, 0 where nothing was measured.

    Frames are taken to be shown at equal times. Raises UnreadableVideo where there is no depth, or not for each frame.
    """
    path = depth_path(video.path)
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            depth_mm = arrays[ARRAY]
    except FileNotFoundError:
        raise UnreadableVideo(video.path, f"it has no depth: there is no {path}") from None
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableVideo(video.path, f"its depth {path} is damaged: {error}") from None
    if depth_mm.dtype != np.uint16 or depth_mm.ndim != 3 or len(depth_mm) != video.frames or not depth_mm.size:
        raise UnreadableVideo(
            video.path,
            f"its depth {path} is {depth_mm.dtype} {list(depth_mm.shape)}; wanted uint16 [{video.frames}, H, W]",
        )
    seconds = [place / video.fps for place in range(video.frames)]
    places_nt = [cut.places(seconds, video.fps) for cut in cuts]
    turned_thw = upright(depth_mm, video.rotation, video.mirrored, axes=(1, 2))
    return np.stack(
        [[nearest(turned_thw[place], *size) / np.float32(1000) for place in places] for places in places_nt]
    )
