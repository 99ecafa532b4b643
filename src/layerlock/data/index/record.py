"""What is known of a video, as values for json and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from layerlock.data.decode.video import VideoInfo

_FIELDS = {name: kind for name, kind in get_type_hints(VideoInfo).items() if name != "path"}

_LEAST = {"frames": 1, "width": 1, "height": 1}
"""least value of the fields that cannot be 0"""


def values_of(video: VideoInfo) -> dict[str, Any]:
    """All fields but the path."""
    return {name: getattr(video, name) for name in _FIELDS}


def video_of(path: str, values: Mapping[str, Any]) -> VideoInfo:
    """The video at `path` with these fields.

    Raises ValueError for a value that cannot be, TypeError or KeyError where a field is unknown, missing or of another
    type.
    """
    for name, kind in _FIELDS.items():
        if type(values[name]) is not kind:
            raise TypeError(name)
    video = VideoInfo(path=path, **values)
    whole = all(getattr(video, name) >= _LEAST.get(name, 0) for name, kind in _FIELDS.items() if kind is int)
    if not (whole and video.rotation <= 3 and 0 < video.fps < math.inf and 0 <= video.seconds < math.inf):
        raise ValueError(path)
    return video
