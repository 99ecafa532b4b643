"""Clips of video files by torchcodec: the frames that PyAV gives, of the same moments.

Which frames a clip is made of is read from the packets, as for PyAV; torchcodec is told where they are, decodes them,
makes them upright and resizes them. It does so in RGB, PyAV in the colours of the file: resized pictures differ by a
grey level or two. Where torchcodec gives other frames than those that it is asked for, PyAV decodes.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerlock.data.decode import pyav
from layerlock.data.decode.file import AVI, opened
from layerlock.data.decode.pyav import BACK_SECONDS, Section, section_of
from layerlock.data.decode.video import Clips, Cut, VideoInfo
from layerlock.errors import LayerlockError


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> Clips:
    """The clips `cuts`, all of one length, resized to `size` (height, width).

    Raises UnreadableVideo, and LayerlockError where torchcodec is not installed or finds no FFmpeg.
    """
    torchcodec = check_torchcodec()
    section = _section(video, cuts)
    if section is None:
        return pyav.read_clips(video, cuts, size=size)
    places_nt = [cut.places(section.seconds, video.fps) for cut in cuts]
    wanted = sorted(set().union(*places_nt))
    frame_khwc = _frames(torchcodec, video, section, wanted, size)
    if frame_khwc is None:
        return pyav.read_clips(video, cuts, size=size)
    return Clips(
        video_nthwc=frame_khwc[np.searchsorted(wanted, places_nt)], decoded=_decoded(wanted, _key_frames(section))
    )


def check_torchcodec() -> Any:
    """The package, with its libraries loaded. Raises LayerlockError where it is not installed or finds no FFmpeg."""
    try:
        import torchcodec.decoders
        import torchcodec.transforms
    except (ImportError, OSError, RuntimeError) as error:
        detail = str(error).strip().partition("\n")[0]
        raise LayerlockError(
            "torchcodec cannot be used here: it needs `pip install 'layerlock[torchcodec]'` and FFmpeg's shared "
            "libraries, version 4 to 8 (apt install ffmpeg, conda install ffmpeg); --clip.backend pyav needs neither "
            f"({detail})"
        ) from error
    return torchcodec


def _section(video: VideoInfo, cuts: Sequence[Cut]) -> Section | None:
    """The packets of the clips, or None where torchcodec would take other frames for them than those that are meant."""
    if not video.seekable or video.mirrored or video.span:
        return None
    for back in BACK_SECONDS:
        with opened(video.path, video.bytes) as (container, stream):
            if container.format.name == AVI:
                return None
            if stream.codec_context.name == "h264" and "444" in (stream.codec_context.pix_fmt or ""):
                return None  # by old x264 it decodes to garbage after a seek
            section = section_of(container, stream, video, cuts, back)
            if section is not None:
                return section
    return None


def _frames(
    torchcodec: Any, video: VideoInfo, section: Section, wanted: list[int], size: tuple[int, int]
) -> np.ndarray | None:
    """Frames of a section, uint8 `[K, H, W, 3]`; None where they cannot be decoded, or others come instead.

    Transport and program streams are such: FFmpeg does not seek exactly in them.
    """
    resize = [] if size == (video.height, video.width) else [torchcodec.transforms.Resize(size)]
    try:
        decoder = torchcodec.decoders.VideoDecoder(
            video.path,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device="cpu",
            custom_frame_mappings=_frame_list(section),  # searched exactly, without a scan of the whole file
            transforms=resize,
        )
        batch = decoder.get_frames_at(wanted)
    except (RuntimeError, ValueError, IndexError):
        return None
    base = float(section.packets[0].time_base)
    moments = [section.times[place] * base for place in wanted]
    return batch.data.numpy() if np.allclose(batch.pts_seconds.numpy(), moments, rtol=0, atol=1e-4) else None


def _key_frames(section: Section) -> list[int]:
    """Places of the key frames among all frames, rising; the first frame has to do for one."""
    key_times = {section.times[0], *section.entries}
    return [place for place, time in enumerate(section.times) if time in key_times]


def _frame_list(section: Section) -> str:
    """The frames as torchcodec wants to be told of them, in the order in which they are shown."""
    is_key = set(_key_frames(section))
    duration_of = {packet.pts: packet.duration or 0 for packet in section.packets}
    frames = [
        {"pts": time, "duration": duration_of[time], "key_frame": int(place in is_key)}
        for place, time in enumerate(section.times)
    ]
    return json.dumps({"frames": frames})


def _decoded(wanted: Sequence[int], keys: Sequence[int]) -> int:
    """Frames to be decoded: from each key frame on, the last that is wanted and all before it."""
    reached = {}
    for place in wanted:
        key = keys[bisect.bisect_right(keys, place) - 1]
        reached[key] = place - key + 1
    return sum(reached.values())
