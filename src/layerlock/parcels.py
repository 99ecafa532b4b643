"""Anything that can be pickled, with its tensors apart: these are not pickled, and go from device to device.

For processes of one job, which trust each other; files are never pickled.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from torch import Tensor


class _Packer(pickle.Pickler):
    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []

    def persistent_id(self, item: object) -> int | None:
        """The place of a tensor among those beside; None of anything else, which is pickled."""
        if not isinstance(item, Tensor):
            return None
        self.tensors.append(item.detach())
        return len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        """The tensor at a place."""
        return self.tensors[place]


def pack(item: object) -> tuple[bytes, list[Tensor]]:
    """The item, pickled, and its tensors; `unpack` restores it from both."""
    file = BytesIO()
    packer = _Packer(file)
    packer.dump(item)
    return file.getvalue(), packer.tensors


def unpack(packed: bytes, tensors: Sequence[Tensor]) -> Any:
    """The item, with its tensors, which may have been moved since."""
    return _Unpacker(BytesIO(packed), tensors).load()
