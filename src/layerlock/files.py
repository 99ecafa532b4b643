"""Files that are there whole or not at all, after a kill or a power cut too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a file of another name beside `path`, forces it to the disk and moves it to its place.

    Raises what `write` and the system raise; then `path` is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(*paths: Path) -> None:
    """Waits until files and folders are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
