"""Files that are there whole or not at all, after a kill or a power cut too."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PART = ".part"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a file of another name beside `path`, forces it to the disk and moves it to its place.

    Of several who write at once each has a file of its own, and the last one stays. Raises what `write` and the system
    raise; then `path` is as it was.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        write(part)
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def is_part(name: str) -> bool:
    """Whether a file is one that `write_whole` fills, or filled until a kill."""
    return name.startswith(".") and name.endswith(_PART)


def remove_parts(folder: Path) -> None:
    """Removes what writers left half written in a folder that nobody else writes into."""
    for path in folder.rglob(f".*{_PART}"):
        with suppress(OSError):
            path.unlink()


def sync(*paths: Path) -> None:
    """Waits until files and folders are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
