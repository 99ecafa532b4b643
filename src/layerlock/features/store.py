"""Arrays of features on the disk that several evaluations and machines share: whole or not at all, least recently used
first to go.

Each array has a folder: `rows.npy`, which is memory-mapped, and `done`, which was touched when it was last used. While
it is made it is another folder beside it, `KEY.TOKEN.part`, and while it is read there is a `used.TOKEN` in it; both
name the process at work. What a process leaves behind is removed where that is known to have ended, or after
`LEFT_BEHIND`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.files import write_whole
from layerlock.holder import read_holder, this_process

LEFT_BEHIND = 24 * 3600.0
"""seconds without a sign of life after which a process on another machine counts as gone"""
BEAT = 60.0
"""seconds from one sign of life to the next, at least"""
PART, USED, MAKER = ".part", "used.", "maker"


class Array:
    """Rows of one tensor on the disk, `[V, ...]`.

    Each process makes its own: two evaluations at once do not write into each other's; the first that is done stays.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self._making = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}{PART}")
        self._file: np.memmap | None = None
        self._sign: Path | None = None
        self._signed = 0.0

    @property
    def done(self) -> bool:
        """Whether all rows are there."""
        return (self.folder / "done").exists()

    def put(self, start: int, x: Tensor) -> None:
        """Writes rows from `start` on."""
        x = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).cpu()
        if self._file is None:
            self._making.mkdir(parents=True)
            this_process().save(self._making / MAKER)
            self._sign = self._making / MAKER
            kind = x.numpy().dtype
            shape = (self.rows, *x.shape[1:])
            self._file = np.lib.format.open_memmap(self._making / "rows.npy", mode="w+", dtype=kind, shape=shape)
        self._live()
        stop = min(self.rows, start + len(x))
        self._file[start:stop] = x[: stop - start].numpy()

    def finish(self, lost: dict[str, str]) -> None:
        """Says that all rows are there, and which videos could not be decoded."""
        if self._file is not None:
            self._file.flush()
            self._file, self._sign = None, None
        write_whole(self._making / "done", lambda part: part.write_text(json.dumps(lost)))
        (self._making / MAKER).unlink(missing_ok=True)
        try:
            self._making.rename(self.folder)
        except OSError:
            if self.done:  # another evaluation was faster
                shutil.rmtree(self._making)
            else:  # what is there is damaged
                shutil.rmtree(self.folder, ignore_errors=True)
                self._making.rename(self.folder)

    def use(self) -> bool:
        """Whether all rows are there, which then are not removed as long as this object lives."""
        sign = self.folder / f"{USED}{secrets.token_hex(8)}"
        try:
            os.utime(self.folder / "done")
            this_process().save(sign)
            weakref.finalize(self, _unlink, sign)
        except FileNotFoundError:
            return False
        except OSError:  # somebody else's, and not to be written to
            return self.done
        self._sign = sign
        return self.done

    def lost(self) -> dict[str, str]:
        """Videos that could not be decoded, and why."""
        try:
            return dict(json.loads((self.folder / "done").read_text()))
        except (OSError, ValueError) as error:
            raise LayerlockError(
                f"{self.folder}: damaged features ({error}); remove the folder to compute them again"
            ) from None

    def take(self, rows: list[int]) -> Tensor:
        """Rows, as they were put."""
        if self._file is None:
            try:
                self._file = np.load(self.folder / "rows.npy", mmap_mode="r")
            except (OSError, ValueError) as error:
                raise LayerlockError(
                    f"{self.folder}: damaged features ({error}); remove the folder to compute them again"
                ) from None
        self._live()
        x = torch.from_numpy(self._file[rows])
        return x.view(torch.bfloat16) if x.dtype == torch.int16 else x

    def _live(self) -> None:
        """A sign of life."""
        if self._sign is not None and time.monotonic() > self._signed + BEAT:
            self._signed = time.monotonic()
            with suppress(OSError):
                os.utime(self._sign)


def make_room(root: Path, needed: int, most: int) -> int:
    """Removes arrays, those that were last used the longest ago first, until `needed` bytes more are at most `most`,
    and what processes that are gone have left behind. Returns how many bytes stay.

    None that somebody reads or makes is removed.
    """
    arrays, total = list[tuple[float, int, Path]](), 0
    for folder in _folders(root):
        if folder.name.endswith(PART):
            if _is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)
                continue
        else:
            with suppress(OSError):
                arrays.append(((folder / "done").stat().st_mtime, _bytes(folder), folder))
        total += _bytes(folder)
    for _, size, folder in sorted(arrays):
        if total + needed <= most:
            break
        if _remove(folder):
            total -= size
    return total


def _remove(folder: Path) -> bool:
    """Removes an array that nobody reads; whether it did."""
    if _is_used(folder):
        return False
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}{PART}")
    try:
        folder.rename(aside)
        if _is_used(aside):  # somebody came in between
            aside.rename(folder)
            return False
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return not aside.exists()


def _is_used(folder: Path) -> bool:
    return any(not _is_gone(sign) for sign in _inside(folder) if sign.name.startswith(USED))


def _is_left_behind(part: Path) -> bool:
    if (part / MAKER).exists():
        return _is_gone(part / MAKER)
    return _age(part) > LEFT_BEHIND  # one of a process that was killed before it could say who it is


def _is_gone(sign: Path) -> bool:
    """Whether the process that a file names has ended, or was silent for too long."""
    holder = read_holder(sign)
    return (holder is not None and holder.has_ended()) or _age(sign) > LEFT_BEHIND


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    for path in _inside(folder):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _folders(root: Path) -> list[Path]:
    return [path for path in _inside(root) if path.is_dir()]


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
