"""Folders of frames to clips, by the same functions as video files, and the depth maps beside colour pictures.

One of these is a video:

- a folder of at least two JPEG, PNG or WebP pictures and nothing that is a video or a folder;
- a folder of pairs, `X.color.jpg` (or png) with `X.depth.png`, as in 7-Scenes;
- a folder with the folders `color` (or `rgb`) and `depth`, their files equally named, as ScanNet's frames are exported.

The pictures are one series (see `series.py`); a folder of several is none, but `FOLDER/img_*` names one of them. Frames
are in natural order: `frame10` follows `frame9`. Numbers that are left out of the names are not waited for.
Turned and mirrored pictures (EXIF) are made upright.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from layerlock.data.decode.exif import exif_orientation
from layerlock.data.decode.file import MOST_PIXELS
from layerlock.data.decode.picture import Orientation, convert, upright
from layerlock.data.decode.series import find_series
from layerlock.data.decode.video import IMAGES, Clips, Cut, UnreadableVideo, VideoInfo, has_video_ending

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

FRAMES_FPS = 25.0
"""frames per second of a folder of pictures, since they do not say"""

DEPTH_FPS = 30.0
"""frames per second of colour and depth pairs: that of the cameras of 7-Scenes and ScanNet"""

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})

_COLOUR_FOLDERS = ("color", "rgb")

_CODECS = {b"\xff\xd8\xff": "mjpeg", b"\x89PN": "png", b"RIFF": "webp"}
"""how files begin: names are no proof"""

_SHOWN = 5

_NO_DEPTH = 65_535
"""besides 0, what stands in a depth map where nothing was measured"""


def holds_frames(files: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether a folder with files and folders of these names, hidden ones left out, is one video made of pictures."""
    files, folders = _visible(files), _visible(folders)
    if _scene_folders(folders) or _pairs(files):
        return True
    pictures = sum(_is_picture(name) for name in files)
    return pictures >= 2 and not folders and not any(map(has_video_ending, files))


def probe(path: str) -> VideoInfo:
    """Look into a folder of frames and decode the first, the middle and the last, with their depth maps.

    Raises UnreadableVideo where there are none, or one of these is damaged or has another size than the first.
    """
    listing = _listed(path)
    frames = len(listing.pictures)
    (turns, mirrored), height, width = _upright(*_decoded(path, listing.pictures[0]))
    video = VideoInfo(
        path=path,
        frames=frames,
        fps=listing.fps,
        width=width,
        height=height,
        seconds=frames / listing.fps,
        codec=IMAGES,
        rotation=turns,
        mirrored=mirrored,
        left_out=listing.left_out,
    )
    for place in sorted({0, frames // 2, frames - 1}):
        _picture(video, listing.pictures[place])
        if listing.depth[place] is not None:
            _depth_map(video, listing, place)
    return video


def read_clips(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> Clips:
    """The clips `cuts`, all of one length, resized to `size` (height, width). Raises UnreadableVideo."""
    listing = _listed_again(video)
    wanted, which_nt = _wanted(video, cuts)
    frame_khwc = _read(video, [listing.pictures[place] for place in wanted], size)
    return Clips(video_nthwc=frame_khwc[which_nt], decoded=len(wanted))


def read_whole(video: VideoInfo, *, size: tuple[int, int], most: int) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, in seconds, and all frames, uint8 `[F, H, W, 3]`, resized to `size` (height, width).

    Raises UnreadableVideo, also where there are more frames than `most`.
    """
    if video.frames > most:
        raise UnreadableVideo(video.path, f"it has {video.frames} frames, more than {most}")
    return _seconds(video), _read(video, _listed_again(video).pictures, size)


def read_depth(video: VideoInfo, cuts: Sequence[Cut], *, size: tuple[int, int]) -> np.ndarray:
    """Depth of the clips `cuts` in metres, float32 `[N, T, H, W]`, `(H, W) = size`; 0 where nothing was measured.

    A depth map is a 16-bit grayscale PNG in millimetres, of any resolution: it covers the same view as its picture.
    Each value is that of the nearest pixel, never a mixture. Raises UnreadableVideo, also where a map is missing.
    """
    listing = _listed_again(video)
    wanted, which_nt = _wanted(video, cuts)
    height, width = reversed(size) if video.rotation % 2 else size
    depth_khw = np.empty((len(wanted), height, width), np.float32)
    for metres_hw, place in zip(depth_khw, wanted, strict=True):
        map_hw = nearest(_depth_map(video, listing, place), height, width)
        metres_hw[:] = np.where(map_hw == _NO_DEPTH, 0, map_hw) / np.float32(1000)
    return upright(depth_khw, video.rotation, video.mirrored, axes=(1, 2))[which_nt]


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The frames of a folder, in natural order."""

    pictures: list[str]
    """paths"""
    depth: list[str | None]
    """the path of the depth map of each, where there is one"""
    fps: float
    left_out: tuple[str, ...] = ()
    """names of single pictures beside them"""


def folder_of(path: str) -> str:
    """The folder in which the frames of a video lie: that of the path or, for `FOLDER/img_*`, the one above."""
    above, name = os.path.split(path)
    named = "*" in name and not has_video_ending(name) and not os.path.lexists(path) and os.path.isdir(above)
    return above if named else path


def _listed(path: str) -> _Listing:
    """The frames of a folder in any of the layouts, looked up again when the folder, or one in it, has changed."""
    top = folder_of(path)
    inside = [os.path.join(top, name) for name in (*_COLOUR_FOLDERS, "depth")]
    try:
        changes = tuple(os.stat(folder).st_mtime_ns for folder in (top, *filter(os.path.isdir, inside)))
    except OSError as error:
        raise UnreadableVideo(path, f"the folder cannot be read: {error.strerror}") from error
    return _listed_at(path, changes)


@functools.lru_cache(maxsize=64)
def _listed_at(path: str, changes: tuple[int, ...]) -> _Listing:
    """The frames of a folder in any of the layouts."""
    folder = folder_of(path)
    files, folders = _names(folder)
    scene, pairs = _scene_folders(folders), _pairs(files)
    if scene:
        colour_of, depth_of = (_by_stem(folder, _inside(folder, name)) for name in scene)
    elif pairs:
        colour_of, depth_of = (_by_stem(folder, files, kind) for kind in (".color", ".depth"))
    else:
        colour_of, depth_of = _by_stem(folder, files), {}
    if not colour_of:
        raise UnreadableVideo(
            path, f"its folder {_plain(scene[0])} holds no pictures" if scene else "it holds no pictures"
        )
    pattern = None if folder == path else os.path.basename(path)
    stems, alone = _one_series(path, pattern, list(colour_of), ".color" if pairs and not scene else "")
    left_out = [os.path.relpath(colour_of[stem], folder) for stem in alone]
    if pairs and not scene and pattern is None:
        left_out += _single_others(files)
    return _Listing(
        pictures=[colour_of[stem] for stem in stems],
        depth=[depth_of.get(stem) for stem in stems],
        fps=DEPTH_FPS if scene or pairs else FRAMES_FPS,
        left_out=tuple(left_out),
    )


def _one_series(path: str, pattern: str | None, stems: list[str], kind: str) -> tuple[Sequence[str], list[str]]:
    """The frames of the one series there is, or of the one that `pattern` names, and the pictures that are in none.

    `stems` are the names without what `kind` of picture they are. A lone picture is a video of one frame.
    """
    if len(stems) == 1 and pattern is None:
        return stems, []
    try:
        series, alone = find_series(stems)
    except ValueError as error:
        raise UnreadableVideo(path, f"two pictures for one frame: {_plain(str(error))}") from error
    told = ", ".join(f"{one.pattern} ({len(one.names)})" for one in series[:_SHOWN]) + ", ..." * (len(series) > _SHOWN)
    if pattern is not None:
        base, ending = os.path.splitext(pattern)
        wanted = (base if ending.lower() in _ENDINGS else pattern).lower()
        named = [one for one in series if wanted in (one.pattern.lower(), one.pattern.lower() + kind)]
        if not named:
            raise UnreadableVideo(
                path, _plain(f"there is no such series of pictures; the folder has: {told or 'none'}")
            )
        return named[0].names, []
    if not series:
        shown = ", ".join(sorted(alone)[:3])
        raise UnreadableVideo(
            path, _plain(f"its pictures are not a series, in which names differ only in a number: {shown}")
        )
    if len(series) > 1:
        raise UnreadableVideo(
            path,
            _plain(
                f"it holds {len(series)} series of pictures: {told}; name one of them in a list, as "
                f"{os.path.basename(path)}/{series[0].pattern}, or give each a folder"
            ),
        )
    return series[0].names, alone


def _single_others(files: Sequence[str]) -> list[str]:
    """Names of pictures beside pairs that are of no kind of theirs, and of no series."""
    others: dict[str, list[str]] = {}
    for name in filter(_is_picture, files):
        stem = os.path.splitext(name)[0]
        if not stem.lower().endswith((".color", ".depth")):
            others.setdefault(stem, []).append(name)
    try:
        _, alone = find_series(others)
    except ValueError:
        return []
    return [name for stem in alone for name in others[stem]]


def _listed_again(video: VideoInfo) -> _Listing:
    """The same frames as when the folder was probed."""
    listing = _listed(video.path)
    if len(listing.pictures) != video.frames:
        raise UnreadableVideo(video.path, f"it holds {len(listing.pictures)} pictures; it held {video.frames}")
    return listing


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to where nobody may look
        return False


def _names(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            is_folder = {entry.name: leads_to_folder(entry) for entry in entries}
    except OSError as error:
        raise UnreadableVideo(folder, f"the folder cannot be read: {error.strerror}") from error
    visible = _visible(is_folder)
    return [name for name in visible if not is_folder[name]], [name for name in visible if is_folder[name]]


def _visible(names: Sequence[str] | dict[str, bool]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _inside(path: str, folder: str) -> list[str]:
    """Files of a folder in the folder `path`."""
    return [os.path.join(folder, name) for name in _names(os.path.join(path, folder))[0]]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _ENDINGS


def _scene_folders(folders: Sequence[str]) -> tuple[str, str] | None:
    """The folders of the colour pictures and of the depth maps, where there are both."""
    name_of = {name.lower(): name for name in folders}
    colour = next((name_of[name] for name in _COLOUR_FOLDERS if name in name_of), None)
    return (colour, name_of["depth"]) if colour and "depth" in name_of else None


def _pairs(files: Sequence[str]) -> set[str]:
    """Stems of colour and depth pairs."""
    stems = [os.path.splitext(name)[0] for name in files if _is_picture(name)]
    colour, depth = (
        {stem[: -len(kind)] for stem in stems if stem.lower().endswith(kind)} for kind in (".color", ".depth")
    )
    return colour & depth


def _by_stem(path: str, files: Sequence[str], kind: str = "") -> dict[str, str]:
    """Paths of the pictures whose names end in `kind`, before the ending, by what is before that."""
    path_of: dict[str, str] = {}
    for name in filter(_is_picture, files):
        stem = os.path.splitext(os.path.basename(name))[0]
        if not stem.lower().endswith(kind):
            continue
        stem = stem[: len(stem) - len(kind)]
        if stem in path_of:
            twins = " and ".join(sorted(_plain(os.path.basename(twin)) for twin in (path_of[stem], name)))
            raise UnreadableVideo(path, f"two pictures for one frame: {twins}")
        path_of[stem] = os.path.join(path, name)
    return path_of


def _seconds(video: VideoInfo) -> list[float]:
    return [place / video.fps for place in range(video.frames)]


def _wanted(video: VideoInfo, cuts: Sequence[Cut]) -> tuple[list[int], np.ndarray]:
    """The frames that the clips are made of, each once and in order, and which of these go where, `[N, T]`."""
    seconds = _seconds(video)
    places_nt = [cut.places(seconds, video.fps) for cut in cuts]
    wanted = sorted(set().union(*places_nt))
    return wanted, np.searchsorted(wanted, places_nt)


def _read(video: VideoInfo, pictures: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """Pictures as uint8 `[K, H, W, 3]`, upright."""
    from av.video.reformatter import VideoReformatter

    height, width = reversed(size) if video.rotation % 2 else size
    frame_khwc = np.empty((len(pictures), height, width, 3), np.uint8)
    scaler = VideoReformatter()
    for frame_hwc, picture in zip(frame_khwc, pictures, strict=True):
        convert(video.path, _picture(video, picture), scaler, frame_hwc)
    return upright(frame_khwc, video.rotation, video.mirrored, axes=(1, 2))


def _picture(video: VideoInfo, picture: str) -> VideoFrame:
    """One frame, of the size that all have."""
    frame, written = _decoded(video.path, picture)
    (turns, mirrored), height, width = _upright(frame, written)
    if (turns, mirrored, height, width) != (video.rotation, video.mirrored, video.height, video.width):
        raise UnreadableVideo(
            video.path,
            f"picture {_name(video.path, picture)} is {width}x{height} {_turned(turns, mirrored)}, "
            f"the first is {video.width}x{video.height} {_turned(video.rotation, video.mirrored)}",
        )
    return frame


def _turned(turns: int, mirrored: bool) -> str:
    return f"turned by {turns * 90} degrees" + " and mirrored" * mirrored


def _upright(frame: VideoFrame, written: Orientation) -> tuple[Orientation, int, int]:
    """What makes a picture upright, and its height and width then."""
    return (written, frame.width, frame.height) if written.turns % 2 else (written, frame.height, frame.width)


def _depth_map(video: VideoInfo, listing: _Listing, place: int) -> np.ndarray:
    """uint16 `[H, W]`."""
    path = listing.depth[place]
    if path is None:
        raise UnreadableVideo(video.path, f"picture {_name(video.path, listing.pictures[place])} has no depth map")
    frame, _ = _decoded(video.path, path)
    if frame.format.name not in ("gray16be", "gray16le"):
        raise UnreadableVideo(
            video.path,
            f"depth map {_name(video.path, path)} is not a 16-bit grayscale PNG: its pixels are {frame.format.name}",
        )
    return frame.to_ndarray()


def nearest(map_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of a map that are nearest to the centres of `height` times `width` ones."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip((height, width), map_hw.shape, strict=True)
    )
    return map_hw[rows[:, None], columns]


def _decoded(path: str, picture: str) -> tuple[VideoFrame, Orientation]:
    """What is in the picture file `picture` of the video `path`, and how it is to be turned."""
    content = _content(path, picture)
    return decode_picture(path, _name(path, picture), content), exif_orientation(content)


def decode_picture(path: str, name: str, content: bytes) -> VideoFrame:
    """A JPEG, PNG or WebP picture, called `name`, of the video `path`. Raises UnreadableVideo."""
    import av

    codec = next((codec for head, codec in _CODECS.items() if content.startswith(head)), None)
    if codec is None:
        raise UnreadableVideo(path, f"picture {name} is {'neither JPEG, PNG nor WebP' if content else 'empty'}")
    if _is_animation(content):
        raise UnreadableVideo(path, f"picture {name} is an animation of several pictures")
    context = cast("VideoCodecContext", av.CodecContext.create(codec, "r"))
    context.thread_count = 1
    # without "explode" the missing part of a picture is made up
    context.options = {"err_detect": "explode", "max_pixels": str(MOST_PIXELS)}
    try:
        return (context.decode(av.Packet(content)) + context.decode(None))[0]
    except (av.FFmpegError, IndexError, ValueError, MemoryError) as error:
        raise UnreadableVideo(path, f"picture {name} is damaged") from error


def _is_animation(content: bytes) -> bool:
    if content.startswith(b"RIFF"):
        return content[12:16] == b"VP8X" and bool(content[20:21] and content[20] & 2)
    before_pixels, _, _ = content.partition(b"IDAT")
    return content.startswith(b"\x89PN") and b"acTL" in before_pixels


def _content(path: str, picture: str) -> bytes:
    try:
        return Path(picture).read_bytes()
    except FileNotFoundError as error:
        raise UnreadableVideo(path, f"picture {_name(path, picture)} is missing") from error
    except OSError as error:
        raise UnreadableVideo(path, f"picture {_name(path, picture)} cannot be read: {error.strerror}") from error


def _name(path: str, picture: str) -> str:
    """A picture's place in its folder, in one line."""
    return _plain(os.path.relpath(picture, folder_of(path)))


def _plain(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
