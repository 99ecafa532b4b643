"""Models as transformers saves them, by what their config.json says they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from layerlock.encoders.authors import is_authors_file
from layerlock.encoders.checkpoint import Checkpoint, fetch
from layerlock.encoders.protocol import FrozenEncoder
from layerlock.encoders.videomae import open_videomae
from layerlock.encoders.vjepa2 import open_vjepa2
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape

_MODELS: dict[str, Callable[[Checkpoint, ClipShape | None], FrozenEncoder]] = {
    "videomae": open_videomae,
    "vjepa2": open_vjepa2,
}


def open_hub(name: str, clip: ClipShape | None) -> FrozenEncoder:
    """The encoder of a local folder or of a repository on the Hugging Face Hub, which may name a revision (`fetch`).

    Raises LayerlockError for what cannot be fetched or read and for other models.
    """
    if is_authors_file(name):
        there = "" if Path(name).exists() else "; no such file is here"
        raise LayerlockError(
            f"hf:{name}: a checkpoint file of torch, as authors publish them, not a folder or a repository of "
            f"transformers; VideoMAE, V-JEPA and V-JEPA 2 are read from such files by the path alone, {name}{there}"
        )
    checkpoint = fetch(name)
    kind = checkpoint.fields.get("model_type")
    if kind not in _MODELS:
        raise LayerlockError(f"{checkpoint.config}: model_type {kind!r} is none of {', '.join(_MODELS)}")
    return _MODELS[kind](checkpoint, clip)
