"""One writer at a time in a folder: a file that names its holder, and that a crash leaves without harm.

Made for storage that several machines share, where the locks of the system may not work: what is relied on is that a
file is created by one process alone and that a file is replaced whole. The holder touches its file every `BEAT`
seconds. A lock is taken over where its process is known to have ended, or was silent for so long that it must have.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from layerlock.errors import LayerlockError
from layerlock.files import remove_parts
from layerlock.holder import Holder, read_holder, this_process

NAME, PART, TURN = ".lock", ".lock.part", ".lock.turn"
FILES = frozenset({NAME, TURN})
"""what a lock may leave in a folder, beside parts of files"""
BEAT = 15.0
"""seconds from one sign of life to the next"""
SILENT = 600.0
"""seconds without a sign of life after which a holder on another machine counts as gone"""
RESTARTED = 60.0
"""the same for one on this machine before its last start"""
LONGEST_TURN = 5.0
"""seconds after which whoever looks at a lock must have died over it"""


class FolderLock:
    """Within it, this process alone writes into `folder`, which is made if need be and removed if it stays empty; files
    that another one left half written are removed.

    Raises LayerlockError naming the holder where another has it, and where the folder cannot be written. Reading needs
    no lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self._holder: Holder | None = None
        self._made: list[Path] = []
        self._left = threading.Event()

    def __enter__(self) -> FolderLock:
        self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._turn() as now:
                self._take(now)
                remove_parts(self.folder)
        except OSError as error:
            self._remove_made()
            raise LayerlockError(f"{self.folder}: cannot be written ({error.strerror})") from None
        threading.Thread(target=self._beat, name="layerlock-lock", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        with suppress(OSError, LayerlockError), self._turn():
            if self._mine() and self._holder is not None and self._holder.pid == os.getpid():  # not a fork of it
                self.path.unlink(missing_ok=True)
        self._remove_made()

    def check(self) -> None:
        """Raises LayerlockError where another process has taken the folder over, this one having been silent."""
        found = read_holder(self.path)
        if found is not None and not self._mine(found):
            raise LayerlockError(
                f"{self.folder}: taken over by {found.words}: this process was silent for {SILENT / 60:.0f} minutes, "
                f"or {self.path.name} was removed; it stops here and leaves the folder to the other"
            )

    def _take(self, now: float) -> None:
        """Raises LayerlockError where another holds it."""
        with suppress(FileNotFoundError):
            silent = now - self.path.stat().st_mtime
            found = read_holder(self.path)
            if not _is_gone(found, silent):
                raise LayerlockError(f"{self.folder}: {_in_use(found, silent, self.path)}")
        self._holder = this_process()
        part = self.folder / PART
        self._holder.save(part)
        part.replace(self.path)

    def _mine(self, found: Holder | None = None) -> bool:
        found = found or read_holder(self.path)
        return found is not None and self._holder is not None and found.token == self._holder.token

    def _beat(self) -> None:
        while not self._left.wait(BEAT):
            with suppress(OSError):
                if self._mine():
                    os.utime(self.path)

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """One process at a time looks at the lock and changes it; yields what time it is for the folder's storage."""
        path, given_up = self.folder / TURN, time.monotonic() + LONGEST_TURN
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                break
            except FileExistsError:
                if time.monotonic() > given_up:
                    path.unlink(missing_ok=True)
                    given_up += LONGEST_TURN
                time.sleep(0.02)
        try:
            yield path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def _remove_made(self) -> None:
        with suppress(OSError):  # the first that holds anything, and so all above it
            for path in self._made:
                path.rmdir()


def _is_gone(holder: Holder | None, silent: float) -> bool:
    if holder is None:  # a file that names nobody, such as a disk that was full leaves
        return silent > RESTARTED
    return holder.has_ended() or silent > (RESTARTED if holder.restarted else SILENT)


def _in_use(holder: Holder | None, silent: float, path: Path) -> str:
    if holder is None:
        return f"{path.name} says that another process writes here but not which one; remove {path} if there is none"
    if holder.here:
        return f"in use by {holder.words}; one process at a time can write here"
    return (
        f"in use by {holder.words}, last seen {max(silent, 0):.0f} seconds ago; one process at a time can write here. "
        f"This machine cannot tell whether that one still runs: if it does not, remove {path}, or wait until it has "
        f"not been seen for {SILENT / 60:.0f} minutes"
    )
