"""Videos below a folder: files by their ending, and folders of frames, each of which is one video."""

from __future__ import annotations

import os

EXTENSIONS = frozenset(
    f".{ending}"
    for line in (
        "3gp asf avi divx f4v flv gif m2ts m4v mkv mov",
        "mp4 mpeg mpg mts mxf ogv ts vob webm wmv",
    )
    for ending in line.split()
)
"""lower-case endings of the files that are taken for videos"""


def find_videos(folder: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Videos in `folder` and below it, sorted, and (path, reason) of the folders that cannot be searched.

    A folder of frames is one video; it is not searched further, and can be `folder` itself. Links are followed; one
    that leads back to a folder above it is not.
    """
    videos: list[str] = []
    closed: list[tuple[str, str]] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        here, above = waiting.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in above:
                continue
            files, folders = _names(here)
        except OSError as error:
            closed.append((here, f"the folder cannot be searched: {error.strerror}"))
            continue
        if _is_video(files, folders):
            videos.append(here)
            continue
        videos += [os.path.join(here, name) for name in files if has_video_ending(name)]
        inside = above | {(status.st_dev, status.st_ino)}
        waiting += [(os.path.join(here, name), inside) for name in folders]
    return sorted(videos), sorted(closed)


def has_video_ending(name: str) -> bool:
    """Whether a file's name ends like that of a video."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _names(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder. Raises OSError."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if _leads_to_folder(entry) else files).append(entry.name)
    return files, folders


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to where nobody may look
        return False


def _is_video(files: list[str], folders: list[str]) -> bool:
    from layerlock.data.read_images import holds_frames

    return holds_frames(files, folders)
