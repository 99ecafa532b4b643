"""From a name to an encoder: which kind it is, and the clips it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from layerlock.encoders.authors import is_authors_file, open_authors
from layerlock.encoders.checkpoint import is_local
from layerlock.encoders.fourds import open_4ds
from layerlock.encoders.hub import open_hub
from layerlock.encoders.protocol import FrozenEncoder
from layerlock.encoders.run import open_checkpoint, run_and_step
from layerlock.encoders.shapes import restrided
from layerlock.encoders.untrained import open_size, random_like
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder, load
from layerlock.model.sizes import SIZES
from layerlock.process import put_back


@put_back()
def open_encoder(
    name: str, *, clip: ClipShape | None = None, seed: int = 0, device: str | torch.device = "cpu"
) -> FrozenEncoder:
    """The encoder of that name, in float32 on `device`.

    - `FOLDER`: a run folder or an encoder folder of ours;
    - `RUN@STEP`: the checkpoint of a run folder after so many steps, unless that is the path of something;
    - `random:SIZE`: random weights in a size of `layerlock.model.sizes`, drawn from `seed`;
    - `random:NAME`: random weights in the shape of the encoder of any other name here;
    - `hf:FOLDER`, `hf:ORG/NAME`, `hf:ORG/NAME@REVISION`: a VideoMAE or V-JEPA 2 as transformers saves it, here or on
      the Hub;
    - `4ds:FILE.npz`: a published 4DS checkpoint;
    - `FILE.pth`, `FILE.pt`: a VideoMAE, V-JEPA or V-JEPA 2 as its authors published it.

    `clip` is the shape of the clips: free for `random:SIZE` and for authors' files without a table of positions, free
    in frames for V-JEPA 2, elsewhere free in stride and frame rate alone. Raises LayerlockError for a name, a
    checkpoint or a clip that cannot be used.
    """
    encoder = _open(name, clip, seed)
    encoder.name = name
    return encoder.prepare(device, torch.float32)


def _open(name: str, clip: ClipShape | None, seed: int) -> FrozenEncoder:
    kind, colon, rest = name.partition(":")
    if kind == "random" and colon:
        return open_size(rest, clip, seed) if rest in SIZES else random_like(_open(rest, clip, seed), seed=seed)
    if kind in _KINDS and rest:
        return _KINDS[kind](rest, clip)
    if place := run_and_step(name):
        return _reclipped(open_checkpoint(*place), clip, name)
    if not Path(name).exists():
        raise LayerlockError(
            f"{name!r} is no encoder: neither an existing folder nor one of RUN@STEP, random:SIZE (SIZE: "
            f"{', '.join(SIZES)}), random:NAME, hf:ORG/NAME, hf:FOLDER, 4ds:FILE.npz, FILE.pth, FILE.pt"
        )
    if is_authors_file(name):
        return open_authors(name, clip)
    return _reclipped(load(name), clip, name)


def at_hand(name: str) -> bool:
    """Whether what an encoder is named by is on this machine, so that nothing need be downloaded to open it."""
    kind, colon, rest = name.partition(":")
    if kind == "random" and colon:
        return rest in SIZES or at_hand(rest)
    if kind == "hf" and colon:
        return is_local(rest)
    return Path(rest if kind in _KINDS and rest else name).exists() or run_and_step(name) is not None


def _reclipped(encoder: Encoder, clip: ClipShape | None, name: str) -> Encoder:
    encoder.clip = restrided(encoder.clip, clip, name)
    return encoder


_KINDS: dict[str, Callable[[str, ClipShape | None], FrozenEncoder]] = {"hf": open_hub, "4ds": open_4ds}
