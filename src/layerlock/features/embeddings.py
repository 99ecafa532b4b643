"""Vectors with what they are of: in memory, whitened, in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch

from layerlock.errors import LayerlockError
from layerlock.features.whitening import PART, Whitening, whitening
from layerlock.files import write_whole

Per = Literal["video", "clip", "token"]
"""what has a vector: the middle clip of each video, every clip of each video, or every token of the middle clip"""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of width D after one block of an encoder, or after each of K.

    A row is a video; or a clip, which `video`, `begin` and `end` tell of; where `position` is given it has a vector for
    every token.
    """

    features: np.ndarray
    """float32 `[R, D]`, `[R, K, D]`, `[R, N, D]` or `[R, K, N, D]`, mapped from a file of its own"""
    files: tuple[str, ...]
    """the videos, in the order of the rows"""
    rejected: tuple[tuple[str, str], ...]
    """(path, reason) of what has no vector"""
    video: np.ndarray | None = None
    """of clips, int64 `[R]`: the video, by its place in `files`"""
    begin: np.ndarray | None = None
    """of clips, float64 `[R]`: when they begin, in seconds of the file"""
    end: np.ndarray | None = None
    """of clips, float64 `[R]`: when they end"""
    position: np.ndarray | None = None
    """of tokens, int64 `[N, 3]`: their place along time, height and width"""
    whitening: Whitening | None = None
    """how the vectors were whitened, None where they are as the encoder gives them"""

    def whitened(self, by: Whitening | bool | None) -> Embeddings:
        """The same, whitened in place by what is given, or by what is learned from them: True. None is True where that
        can be done, else False. Raises LayerlockError where it cannot.
        """
        if by is False:
            return self
        x = torch.from_numpy(self.features)
        try:
            learned = by if isinstance(by, Whitening) else whitening(x)
        except ValueError as error:
            if by is None:
                return self
            rows = "videos" if self.video is None else "clips"
            raise LayerlockError(f"whiten: {len(x)} {rows} cannot be whitened ({error})") from None
        for part in x.split(PART):
            part.copy_(learned.apply(part))
        return replace(self, whitening=learned)

    def without_rows(self) -> Embeddings:
        """The same of no videos."""
        return Embeddings(features=np.empty((0, *self.features.shape[1:]), np.float32), files=(), rejected=())

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes all of it and `facts` as the .npz file `path`; where that ends in .npy, `features` go there and the
        rest into the .npz file beside it. Raises LayerlockError.
        """
        arrays = {name: getattr(self, name) for name in ("features", "video", "begin", "end", "position")}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        arrays |= {"files": np.array(self.files), **facts, **(self.whitening.arrays() if self.whitening else {})}
        others = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npy":
                others = path.with_suffix(".npz")
                others.unlink(missing_ok=True)  # it would be of other rows
                features = arrays.pop("features")
                write_whole(path, lambda part: _write(part, lambda file: np.save(file, features)))
            write_whole(others, lambda part: _write(part, lambda file: np.savez(file, **arrays)))
        except OSError as error:
            raise LayerlockError(f"{path}: cannot be written ({error.strerror})") from None


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As a file object: numpy would add an ending to a path."""
    with path.open("wb") as file:
        write(file)
