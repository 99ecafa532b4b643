"""Bytes of a file, at a path or behind a URL."""

from __future__ import annotations

import os

from layerlock.data.remote import is_remote, read_remote, size_of_remote


def read_range(place: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end - 1` of a file, fewer where it ends before. Raises OSError."""
    if is_remote(place):
        return read_remote(place, begin, end)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        parts = []
        while begin < end and (part := os.pread(descriptor, end - begin, begin)):
            parts.append(part)
            begin += len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def size_of_file(place: str) -> int:
    """Bytes of a file. Raises OSError."""
    return size_of_remote(place) if is_remote(place) else os.path.getsize(place)


def read_text(place: str) -> str:
    """The text of a file, UTF-8. Raises OSError, and ValueError for other bytes."""
    return read_range(place, 0, size_of_file(place)).decode("utf-8-sig")
