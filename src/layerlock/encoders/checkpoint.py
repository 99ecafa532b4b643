"""A checkpoint folder of transformers: settings as JSON, weights as safetensors. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.errors import LayerlockError, one_line
from layerlock.model.encoder import read_tensors

EXTRA = "pip install 'layerlock[transformers]'"
_PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_WANTED = ("config.json", *_PREPROCESSORS, "*.safetensors", _INDEX)

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder, and the settings in its config.json."""

    folder: Path
    fields: dict[str, Any]

    @property
    def config(self) -> Path:
        """Where the settings stand."""
        return self.folder / "config.json"

    def weights(self) -> dict[str, Tensor]:
        """All tensors, of one file or of several that an index names. Raises LayerlockError for other weights."""
        whole, index = self.folder / _WEIGHTS, self.folder / _INDEX
        if whole.exists():
            return read_tensors(whole)
        if not index.exists():
            raise LayerlockError(
                f"{self.folder}: no {_WEIGHTS}; weights in other forms (pytorch_model.bin) are pickled and never read"
            )
        return {name: value for part in self._parts(index) for name, value in read_tensors(part).items()}

    def _parts(self, index: Path) -> list[Path]:
        places = _read_json(index).get("weight_map")
        names = set(places.values()) if isinstance(places, dict) else set()
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise LayerlockError(f"{index}: weight_map does not name files of its folder")
        return [self.folder / name for name in sorted(names)]

    def colours(self, default: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
        """Mean and deviation of pixels in [0, 1], by the preprocessor's settings; ImageNet's where there are none.
        `default` is what that preprocessor takes for what its settings leave out.

        Raises LayerlockError for settings that are not three numbers each, and for a scale that is none.
        """
        for path in (self.folder / name for name in _PREPROCESSORS):
            if path.exists():
                fields = _read_json(path)
                scale, mean, std = _scale(path, fields), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
                if fields.get("do_normalize", True):
                    mean = _colour(path, "image_mean", fields.get("image_mean", default[0]))
                    std = _colour(path, "image_std", fields.get("image_std", default[1]))
                if min(std) <= 0:
                    raise LayerlockError(f"{path}: image_std {list(std)} must be positive")
                return _over(mean, scale), _over(std, scale)
        return IMAGENET_MEAN, IMAGENET_STD


def fetch(name: str) -> Checkpoint:
    """The checkpoint of a local folder or, where there is none, of that repository on the Hub: `ORG/NAME`, or
    `ORG/NAME@REVISION` for a branch, a tag or a commit.

    Raises LayerlockError where there is neither, and for a model that runs by code of its own. Downloads nothing but
    JSON and safetensors.
    """
    if Path(name).is_file():
        raise LayerlockError(f"hf:{name}: a file, where a folder or a repository of transformers is wanted")
    folder = Path(name) if Path(name).is_dir() else _download(name)
    found = Checkpoint(folder=folder, fields=_read_json(folder / "config.json"))
    if code := found.fields.get("auto_map"):
        raise LayerlockError(
            f"{found.config}: auto_map: the model runs by code that comes with it ({code}), which is refused; save it "
            "as a VideoMAE or V-JEPA 2 of transformers"
        )
    return found


def is_local(name: str) -> bool:
    """Whether a checkpoint is a folder here, or is kept from an earlier download."""
    if Path(name).is_dir():
        return True
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return False
    repository, revision = _pinned(name)
    try:
        kept = [try_to_load_from_cache(repository, file, revision=revision) for file in (_WEIGHTS, _INDEX)]
        return any(isinstance(path, str) for path in kept)
    except HFValidationError:
        return False


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise LayerlockError(f"hf:{name}: no such folder, and the Hub needs transformers ({EXTRA})") from None
    try:
        repository, revision = _pinned(name)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_WANTED)))
    except Exception as error:  # whatever the network, the Hub and its client raise
        raise LayerlockError(f"hf:{name}: no such folder, and not available from the Hub ({one_line(error)})") from None


def _pinned(name: str) -> tuple[str, str | None]:
    """A repository and, where one is named, its revision."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise LayerlockError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LayerlockError(f"{path}: not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise LayerlockError(f"{path}: not a JSON object")
    return fields


def _scale(path: Path, fields: dict[str, Any]) -> float:
    """What the preprocessor makes of a pixel of 255: 1, where it is like most."""
    factor = fields.get("rescale_factor", 1 / 255) if fields.get("do_rescale", True) else 1
    if not _is_number(factor) or factor <= 0:
        raise LayerlockError(f"{path}: rescale_factor {factor!r} is no positive number")
    return 255 * float(factor)


def _is_number(value: Any) -> bool:
    """Whether it is one that a pixel may be scaled by."""
    return type(value) in (int, float) and abs(value) < 1e9  # no comparison holds of NaN


def _over(colour: Colour, scale: float) -> Colour:
    red, green, blue = colour
    return red / scale, green / scale, blue / scale


def _colour(path: Path, field: str, value: Any) -> Colour:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        raise LayerlockError(f"{path}: {field} {value!r} is not three numbers")
    red, green, blue = map(float, value)
    return red, green, blue
