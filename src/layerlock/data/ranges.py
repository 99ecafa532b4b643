"""Bytes of a file."""

from __future__ import annotations

import os


def read_range(place: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end - 1` of a file, fewer where it ends before. Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        parts = []
        while begin < end and (part := os.pread(descriptor, end - begin, begin)):
            parts.append(part)
            begin += len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
