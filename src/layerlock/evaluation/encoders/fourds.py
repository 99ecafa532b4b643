"""Published 4DS checkpoints as encoders."""

from __future__ import annotations

from layerlock.errors import LayerlockError
from layerlock.evaluation.encoders.shapes import restrided
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.fourds import load_4ds


def open_4ds(path: str, clip: ClipShape | None) -> Encoder:
    """The encoder of a 4DS `.npz`, for clips of as many frames and pixels as it has positions, at stride 2.

    Raises LayerlockError for a file that is no such checkpoint, naming the first key that is off.
    """
    vit = load_4ds(path)
    frames, height, width = (tokens * side for tokens, side in zip(vit.grid, vit.config.patch, strict=True))
    if height != width:
        raise LayerlockError(f"{path}: made for frames of {height} x {width} pixels; only square ones can be read")
    encoder = Encoder(vit.config, restrided(ClipShape(frames=frames, stride=2, size=height), clip, path))
    encoder.vit.load_state_dict(vit.state_dict(), assign=True)
    return encoder
