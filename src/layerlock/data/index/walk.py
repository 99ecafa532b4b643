"""Videos below a folder: files by their ending, and folders of frames, each of which is one video.

Files and folders whose names begin with a dot are hidden: they are passed over.
"""

from __future__ import annotations

import os

from layerlock.data.decode.images import holds_frames, leads_to_folder
from layerlock.data.decode.video import has_video_ending


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
        if holds_frames(files, folders):
            videos.append(here)
            continue
        videos += [os.path.join(here, name) for name in files if has_video_ending(name)]
        inside = above | {(status.st_dev, status.st_ino)}
        waiting += [(os.path.join(here, name), inside) for name in folders]
    return sorted(videos), sorted(closed)


def _names(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, except hidden ones. Raises OSError."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if leads_to_folder(entry) else files).append(entry.name)
    return files, folders
