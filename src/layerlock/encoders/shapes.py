"""The clips that an encoder is made for, and what a user may ask of them."""

from __future__ import annotations

from dataclasses import replace

from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape


def restrided(own: ClipShape, asked: ClipShape | None, where: str, *, any_frames: bool = False) -> ClipShape:
    """The clips asked for, where they have the size (and, without `any_frames`, the frames) of the encoder's own.

    Raises LayerlockError naming `where` for others.
    """
    if asked is None:
        return own
    if asked != replace(asked, size=own.size, frames=asked.frames if any_frames else own.frames):
        frames = "any number of" if any_frames else str(own.frames)
        raise LayerlockError(
            f"{where}: takes clips of {frames} frames of {own.size} x {own.size} pixels, not of {asked.frames} frames "
            f"of {asked.size} x {asked.size}"
        )
    if problems := asked.problems():
        raise LayerlockError(f"{where}: {problems[0]}")
    return asked
