"""Rows of numbers on the disk that are made one batch after the other: memory does not grow with them."""

from __future__ import annotations

import math
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from layerlock.errors import LayerlockError

SPARE = 0.9
"""share of the free disk that rows may take"""


class Rows:
    """Rows of one shape, float32, in an unnamed file, of which a killed process leaves nothing behind.

    The file is for up to `most` rows and in `folder`, which is made if need be and has to have room for a copy of it
    too (None: where the system has its temporary files). Raises LayerlockError where the disk is too small or cannot be
    written to.
    """

    def __init__(self, folder: Path | None, most: int) -> None:
        self._folder, self._most = Path(tempfile.gettempdir()) if folder is None else folder, most
        self._copies = 1 if folder is None else 2
        self._count, self._shape = 0, tuple[int, ...]()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(prefix="layerlock-", dir=self._folder)  # noqa: SIM115 (`__exit__` does)
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing more is written; what was mapped stays."""
        with suppress(OSError):
            self._file.close()

    def append(self, x: Tensor) -> None:
        """Writes rows `[R, ...]` behind those that are there."""
        if not self._shape:
            self._shape = tuple(x.shape[1:])
            self._check_room(4 * math.prod(self._shape))
        try:
            self._file.write(np.ascontiguousarray(x.numpy(), np.float32).data)
        except OSError as error:
            raise self._refused(error) from None
        self._count += len(x)

    def mapped(self) -> np.ndarray:
        """All rows, at least one, as a memory map that can be written to; the file is there as long as it is."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from None
        return np.memmap(self._file, np.float32, mode="r+", shape=(self._count, *self._shape))

    def _check_room(self, row_bytes: int) -> None:
        needed, free = row_bytes * self._most * self._copies, shutil.disk_usage(self._folder).free
        if needed > SPARE * free:
            raise LayerlockError(
                f"{self._folder}: {self._most:,} rows of {row_bytes:,} bytes"
                f"{', and their copy in the file,' if self._copies == 2 else ''} take {needed / 1e9:,.1f} GB; "
                f"the disk has {free / 1e9:,.1f} GB left"
            )

    def _refused(self, error: OSError) -> LayerlockError:
        return LayerlockError(f"{self._folder}: cannot be written ({error.strerror})")
