"""Bytes that autograd keeps for backward, counted while they are kept."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(run: Callable[[], object], modules: Iterable[nn.Module]) -> int:
    """Most bytes at one moment that a call keeps for backward, beside the tensors that the modules hold."""
    saved = SavedForBackward(tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    with saved:
        run()
    return saved.peak


class SavedForBackward(saved_tensors_hooks):
    """Counts bytes that are kept for backward while it is entered: `live` now, `peak` the most at one moment.

    Storages count once and whole, however many views of them are kept; those of `constant` tensors (weights, tables)
    do not count.
    """

    def __init__(self, constant: Iterable[Tensor]) -> None:
        self.live = self.peak = 0
        self._constant = {tensor.untyped_storage()._cdata for tensor in constant}
        self._views: Counter[int] = Counter()
        super().__init__(self._pack, lambda kept: kept.tensor)

    def _pack(self, tensor: Tensor) -> _Kept:
        kept, storage = _Kept(tensor), tensor.untyped_storage()
        where, size = storage._cdata, storage.nbytes()  # data of tensors on meta have no address
        if where not in self._constant:
            if not self._views[where]:
                self.live += size
                self.peak = max(self.peak, self.live)
            self._views[where] += 1
            weakref.finalize(kept, self._release, where, size)
        return kept

    def _release(self, where: int, size: int) -> None:
        self._views[where] -= 1
        if not self._views[where]:
            self.live -= size


class _Kept:
    """A tensor that autograd keeps; gone when autograd lets it go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
