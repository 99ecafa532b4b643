"""Videos that are no files of their own: a span of bytes of a shard, which is a tar file, read like a file."""

from __future__ import annotations

import os
import tarfile
from typing import NamedTuple

from layerlock.data.ranges import read_range

_BLOCK = 1 << 20
"""bytes that are read at a time: many packed videos whole"""


class Span(NamedTuple):
    """Where a video lies in a shard."""

    shard: str
    """path or URL of the tar file"""
    begin: int
    """of its first byte, behind the header of 512 bytes that tar puts before it"""
    bytes: int


class RangeFile:
    """Bytes `begin` to `end` of a file as a file that can be read and sought; `name` is what it is called."""

    def __init__(self, place: str, begin: int, end: int, name: str) -> None:
        self.name, self._place, self._begin, self._end = name, place, begin, end
        self._at = begin
        self._block, self._block_at = b"", begin

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes, fewer only at the end. Raises OSError, also where the file ends before."""
        end = self._end if count < 0 else min(self._at + count, self._end)
        if self._at >= end:
            return b""
        if not self._block_at <= self._at <= end <= self._block_at + len(self._block):
            self._fill(self._at, max(end, min(self._at + _BLOCK, self._end)))
        begin = self._at - self._block_at
        data = self._block[begin : begin + end - self._at]
        self._at = end
        return data

    def _fill(self, begin: int, end: int) -> None:
        self._block, self._block_at = read_range(self._place, begin, end), begin
        if len(self._block) < end - begin:
            raise OSError(f"{self._place} ends at byte {begin + len(self._block):,}")

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self._end - self._begin

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place, which may lie behind the end; returns it."""
        base = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._begin, base + offset)
        return self.tell()

    def tell(self) -> int:
        """The place of the next byte that is read."""
        return self._at - self._begin


class SpanFile(RangeFile):
    """A video in a shard as a file. The header before it, which comes with its first bytes, has to be that of a file of
    as many bytes: else the shard is another one than was indexed, and `matches` is false.
    """

    def __init__(self, span: Span, name: str) -> None:
        super().__init__(span.shard, span.begin, span.begin + span.bytes, name)
        self._fill(span.begin - tarfile.BLOCKSIZE, min(span.begin - tarfile.BLOCKSIZE + _BLOCK, self._end))
        self.matches = _size_in(self._block[: tarfile.BLOCKSIZE]) == span.bytes


def _size_in(header: bytes) -> int:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return -1
