"""What is known of a video, as values for json and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from layerlock.data.decode.video import VideoInfo

_FIELDS = {name: kind for name, kind in get_type_hints(VideoInfo).items() if name not in ("path", "span")}

_LEAST = {"frames": 1, "width": 1, "height": 1}
"""least value of the fields that cannot be 0"""


def values_of(video: VideoInfo) -> dict[str, Any]:
    """All fields but where it is."""
    return {name: getattr(video, name) for name in _FIELDS}


def video_of(path: str, values: Mapping[str, Any]) -> VideoInfo:
    """The video at `path` with these fields.

    Raises ValueError for a value that cannot be, TypeError or KeyError where a field is unknown, missing or of another
    type.
    """
    checked = {name: _checked(values[name], kind) for name, kind in _FIELDS.items()}
    video = VideoInfo(path=path, **{**values, **checked})
    whole = all(getattr(video, name) >= _LEAST.get(name, 0) for name, kind in _FIELDS.items() if kind is int)
    rises = all(a < b for list_n in (video.missing, video.times) for a, b in itertools.pairwise((-1, *list_n)))
    fits = len(video.times) in (0, video.frames) and video.rotation <= 3
    if not (whole and rises and fits and 0 < video.fps < math.inf and 0 <= video.seconds < math.inf):
        raise ValueError(path)
    return video


def _checked(value: Any, kind: Any) -> Any:
    """The value as one of that type; json has lists for tuples. Raises TypeError."""
    if get_origin(kind) is tuple and type(value) is list:
        return tuple(_checked(item, get_args(kind)[0]) for item in value)
    if type(value) is not kind and not (get_origin(kind) is tuple and type(value) is tuple):
        raise TypeError(value)
    return value
