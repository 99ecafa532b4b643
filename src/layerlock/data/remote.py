"""Files behind URLs (`https://`, `s3://`, `gs://`, ...), by fsspec: ranges of bytes, with time limits and retries."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from layerlock.errors import LayerlockError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TRIES = 4
SECONDS = 20.0
"""for each of them; all together end before the loader gives up a worker (`loader.SAMPLE_SECONDS`)"""
PAUSE = 0.5
"""seconds after the first failure; after each further one twice as long"""

_PIECE = 1 << 23
"""bytes of a file that are fetched at a time"""

_FINAL = frozenset({400, 401, 403, 404, 405, 410, 416})
"""answers of HTTP that a further try does not change"""

Result = TypeVar("Result")


def is_remote(place: str) -> bool:
    """Whether a place is a URL, not a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


def refuse_secrets(place: str) -> None:
    """LayerlockError for a URL with a password or a query, as signed ones have: it would be written into indexes, run
    folders and logs.
    """
    if is_remote(place) and ("?" in place or "@" in urlsplit(place).netloc):
        scheme, netloc, path, *_ = urlsplit(place)
        bare = urlunsplit((scheme, netloc.rpartition("@")[2], path, "", ""))
        raise LayerlockError(
            f"{bare}: URLs with a password or a query are not taken, since they would be written into indexes and run "
            "folders; set credentials where fsspec reads them (docs/data.md)"
        )


def read_remote(url: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end - 1` of a file. Raises OSError where it cannot be read, or is shorter."""

    def read(files: AbstractFileSystem, path: str) -> bytes:
        data = bytes(_call(files, "cat_file", path, start=begin, end=end))
        if len(data) > end - begin:
            raise _Final("the server sends whole files where a range is asked for")
        if len(data) < end - begin:
            raise OSError(f"{len(data):,} bytes of {end - begin:,} came")
        return data

    return _patiently(url, read) if begin < end else b""


def size_of_remote(url: str, *, fresh: bool = False) -> int:
    """Bytes of a file, as a listing said before unless it has to be `fresh`. Raises FileNotFoundError where there is
    none, OSError where nothing can be learnt.
    """

    def look(files: AbstractFileSystem, path: str) -> Any:
        if fresh:
            files.invalidate_cache()
        return _call(files, "info", path)["size"]

    size = _patiently(url, look)
    if not isinstance(size, int):
        raise OSError(f"{url}: the server does not say how large it is")
    return size


def list_remote(url: str) -> list[str]:
    """Names of the files in a folder, sorted. Raises OSError."""

    def look(files: AbstractFileSystem, path: str) -> list[str]:
        files.invalidate_cache()
        return list(_call(files, "ls", path, detail=False))

    found = _patiently(url, look)
    return sorted({name.rstrip("/").rpartition("/")[2] for name in found})


def fetch(url: str, path: Path) -> None:
    """Copies a file, piece by piece. Raises OSError."""
    size = size_of_remote(url, fresh=True)
    with path.open("wb") as file:
        for begin in range(0, size, _PIECE):
            file.write(read_remote(url, begin, min(begin + _PIECE, size)))


class _Final(OSError):
    """What a further try does not change."""


def _call(files: AbstractFileSystem, what: str, *given: Any, **named: Any) -> Any:
    """A method of a file system, within the time limit where that can be had."""
    from fsspec.asyn import AsyncFileSystem, sync

    if isinstance(files, AsyncFileSystem):
        return sync(files.loop, getattr(files, f"_{what}"), *given, timeout=SECONDS, **named)
    return getattr(files, what)(*given, **named)


def _patiently(url: str, work: Callable[[AbstractFileSystem, str], Result]) -> Result:
    """The result of work with a file, tried `TRIES` times. Whatever it raises becomes OSError."""
    files, path = _opened(url)
    for turn in range(TRIES):
        try:
            return work(files, path)
        except Exception as error:  # each file system has errors of its own
            last = error
            if _is_final(error):
                break
        if turn + 1 < TRIES:
            time.sleep(PAUSE * 2**turn)
    told = " ".join(str(last).split()) or type(last).__name__
    kind = FileNotFoundError if isinstance(last, FileNotFoundError) else OSError
    tried = "" if _is_final(last) else f" (tried {TRIES} times)"
    raise kind(told + tried) from last


def _is_final(error: Exception) -> bool:
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return isinstance(error, FileNotFoundError | PermissionError | _Final) or status in _FINAL


def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
    except ImportError as error:
        raise LayerlockError(f"{url}: this needs `pip install 'layerlock[remote]'` ({error})") from None
    except ValueError as error:
        raise LayerlockError(f"{url}: {error}") from None
    return files, path
