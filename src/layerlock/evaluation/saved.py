"""Files of an evaluation that is under way: tensors with their facts in one safetensors file, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.files import write_whole


def save_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes tensors and facts. Raises LayerlockError where the disk does not take them; then the file is as it was."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        write_whole(path, lambda part: save_file(plain, part, metadata={"facts": json.dumps(facts)}))
    except (OSError, SafetensorError) as error:
        raise LayerlockError(f"{path}: cannot be written ({error})") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_tensors` wrote, None where there is no file. Raises LayerlockError where it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise LayerlockError(f"{path}: damaged ({error}); remove it, and what it held is done again") from None
