"""A trained encoder, as people hold it: clips in, features out, of any depth; saved as config.json +
model.safetensors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from layerlock import draws
from layerlock.errors import LayerlockError
from layerlock.files import write_whole
from layerlock.model.cores import clip_by_clip
from layerlock.model.patches import Grid, patchify, token_grid
from layerlock.model.vit import Dense, ViT, ViTConfig, initialize
from layerlock.process import put_back

FORMAT = "layerlock-encoder/1"
HEADLINE = 0.95
"""The depth, as a fraction of all blocks, that the LayerLock paper reports (section 3.6: layer 45 of 48)."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """The clips an encoder was trained on: `frames`, `stride` source frames apart (or 1 / `fps` seconds, where that is
    given), `size` pixels high and wide.
    """

    frames: int
    stride: int
    size: int
    fps: float | None = None

    def problems(self) -> list[str]:
        """What is wrong with these numbers, a line each."""
        found = [
            f"clip.{name}: {value!r} is not a positive whole number"
            for name in ("frames", "stride", "size")
            if not isinstance(value := getattr(self, name), int) or value < 1
        ]
        if self.fps is not None and (not isinstance(self.fps, int | float) or not 0 < self.fps <= 1000):
            found.append(f"clip.fps: {self.fps!r} is not above 0 and at most 1000 frames a second")
        return found


def block_at(fraction: float, depth: int) -> int:
    """The block `floor(fraction * depth)` of `depth`, at least 1 (LayerLock section 3.6)."""
    return max(1, int(fraction * depth + 1e-9))


class Encoder(nn.Module):
    """A backbone with the shape of its clips.

    Evaluation runs all blocks, decoder blocks included, on patch tokens alone. `name` is what it was opened by.
    """

    name: str = "encoder"

    def __init__(self, model: ViTConfig, clip: ClipShape) -> None:
        super().__init__()
        self.clip = clip
        self.vit = ViT(model, token_grid(clip.frames, clip.size, clip.size, model.patch))
        self.eval().requires_grad_(False)

    @classmethod
    def around(cls, vit: ViT, clip: ClipShape) -> Encoder:
        """A reader of a backbone that may go on learning: nothing of it is frozen or copied."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.clip, encoder.vit = clip, vit
        return encoder

    @classmethod
    @put_back()
    def random(cls, model: ViTConfig, clip: ClipShape, *, seed: int = 0) -> Encoder:
        """An encoder with the weights that training starts from: what a trained one is to be compared with."""
        encoder = cls(model, clip)
        initialize(encoder.vit, draws.generator(seed, "weights"))
        return encoder

    def with_random_weights(self, seed: int = 0) -> Encoder:
        """Another encoder of this shape, on the CPU, with the weights that training starts from."""
        return Encoder.random(self.vit.config, self.clip, seed=seed)

    def prepare(self, device: str | torch.device, compute: torch.dtype) -> Encoder:
        """Moves to `device` and computes in `compute` from now on; the weights are cast to it once, and so rounded."""
        self.to(device)
        for part in self.modules():
            if isinstance(part, Dense):
                part.to(compute).pack(self.vit.tokens)
        self.vit.compute = compute
        return self

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return self.vit.config.depth

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        return self.vit.config.width

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width."""
        return self.vit.grid

    def at_depth(self, fraction: float) -> int:
        """The block `floor(fraction * L)`, at least 1 (section 3.6)."""
        return block_at(fraction, self.depth)

    def forward(self, video_btchw: Tensor, depth: int | None = None) -> Tensor:
        """Features `[B, N, D]` of whole clips after block `depth` (without one: `floor(0.95 L)`); clips as for
        `forward_intermediates`.
        """
        return self.forward_intermediates(video_btchw, [self.at_depth(HEADLINE) if depth is None else depth])[0]

    @torch.no_grad()
    def forward_intermediates(
        self, video_btchw: Tensor, indices: Sequence[int], *, output_fmt: Literal["tokens", "grid"] = "tokens"
    ) -> list[Tensor]:
        """Features after each of the blocks `indices` (0: projected patches, L: the last), running no deeper than
        asked, without a graph.

        Clips are `[B, T, 3, H, W]`, uint8 or float in [0, 1], of the encoder's own shape. Features are `[B, N, D]` in
        token order (t, h, w), or `[B, t, h, w, D]` as a grid, in the compute type. Raises LayerlockError for other
        shapes.
        """
        check_clips(video_btchw, indices, self.clip, self.depth)
        device = self.vit.embed.weight.device
        self.vit.rotation()  # made here, once, not by every thread

        def read(video_btchw: Tensor) -> list[Tensor]:
            return self.vit.intermediates(patchify(video_btchw.to(device), self.vit.config.patch), indices)

        features = clip_by_clip(read, video_btchw) if device.type == "cpu" else read(video_btchw)
        return features if output_fmt == "tokens" else [x.unflatten(1, self.grid) for x in features]

    @torch.no_grad()
    def queries_and_keys(self, block: int, x_bnd: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `[B, heads, N, D / heads]` of a block (1: the first) of whole clips, from its input `[B, N,
        D]`: the features of the depth before.
        """
        x_bnd = x_bnd.to(self.vit.embed.weight.device, self.vit.compute)
        part: Any = self.vit.blocks[block - 1]
        query, key, _ = part.query_key_value(x_bnd, self.vit.rotation())
        return query, key

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes `config.json` and `model.safetensors` into `folder`, made if need be."""
        return save_backbone(folder, self.vit, self.clip)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: Path) -> Encoder:
        """An encoder of the shape that the tables `model` and `clip` of the file `where` say, its weights yet to be
        loaded. Raises LayerlockError for settings that make none.
        """
        try:
            model, clip = ViTConfig(**_tuples(settings["model"])), ClipShape(**settings["clip"])
            if problems := [*model.problems(), *clip.problems()]:
                raise ValueError(problems[0])
            return cls(model, clip)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise LayerlockError(f"{where}: not the settings of an encoder ({error})") from None

    @classmethod
    @put_back()
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Encoder:
        """Loads what `save_pretrained` wrote. Raises LayerlockError where the folder holds something else."""
        folder = Path(folder)
        encoder = cls.from_settings(_read_settings(folder / "config.json"), folder / "config.json")
        encoder.vit.load_state_dict(_read_weights(folder / "model.safetensors", encoder.vit))
        return encoder.to(device)


def save_backbone(folder: str | Path, vit: ViT, clip: ClipShape) -> Path:
    """Writes a backbone as an encoder folder; weights keep the type they are held in."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"format": FORMAT, "model": dataclasses.asdict(vit.config), "clip": dataclasses.asdict(clip)}
    weights = {name: value.detach().cpu().contiguous() for name, value in vit.state_dict().items()}
    # settings first: new weights beside old settings could be read as what they are not, old ones are refused
    write_whole(folder / "config.json", lambda part: part.write_text(json.dumps(settings, indent=2) + "\n"))
    write_whole(folder / "model.safetensors", lambda part: save_file(weights, part, metadata={"format": "pt"}))
    return folder


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise LayerlockError(f"{path.parent}: no encoder here (there is no {path.name})") from None
    except OSError as error:
        raise LayerlockError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LayerlockError(f"{path}: not JSON ({error})") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise LayerlockError(f"{path}: not the config of an encoder of ours (its format is not {FORMAT})")
    return settings


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _read_weights(path: Path, vit: ViT) -> dict[str, Tensor]:
    weights = read_tensors(path)
    check_weights(path, weights, vit.state_dict())
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises LayerlockError for one that is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise LayerlockError(f"{path}: missing") from None
    except (SafetensorError, OSError) as error:
        raise LayerlockError(f"{path}: not a readable safetensors file ({error})") from None


def check_weights(path: str | Path, weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raises LayerlockError naming the first tensor of `weights` that is missing, surplus, no tensor at all, of
    another shape than `wanted` or not of floating point.
    """
    for name, like in wanted.items():
        if name not in weights:
            raise LayerlockError(f"{path}: no tensor {name}")
        if not isinstance(weights[name], Tensor):
            raise LayerlockError(f"{path}: {name} is no tensor but {type(weights[name]).__name__}")
        if weights[name].shape != like.shape:
            raise LayerlockError(f"{path}: {name} is {list(weights[name].shape)}, wanted {list(like.shape)}")
        if not weights[name].is_floating_point():
            raise LayerlockError(f"{path}: {name} is {weights[name].dtype}, wanted floating point")
    surplus = sorted(set(weights) - set(wanted))
    if surplus:
        raise LayerlockError(f"{path}: unknown tensor {surplus[0]}")


def check_clips(video_btchw: Tensor, indices: Sequence[int], clip: ClipShape, depth: int) -> None:
    """Raises LayerlockError for clips that are not of the shape `clip`, and for blocks outside 0 .. `depth`."""
    wanted = (clip.frames, 3, clip.size, clip.size)
    if video_btchw.ndim != 5 or tuple(video_btchw.shape[1:]) != wanted:
        raise LayerlockError(
            f"this encoder takes clips [B, {', '.join(map(str, wanted))}] (batch, frames, channels, height, "
            f"width), not {list(video_btchw.shape)}"
        )
    if video_btchw.dtype != torch.uint8 and not video_btchw.is_floating_point():
        raise LayerlockError(f"clips are uint8 or float in [0, 1], not {video_btchw.dtype}")
    wrong = [i for i in indices if not 0 <= i <= depth]
    if wrong or not indices:
        raise LayerlockError(f"depths are 0 to {depth}, not {list(indices)}")


@put_back()
def load(path: str | Path, *, device: str | torch.device = "cpu") -> Encoder:
    """The encoder of a run folder or of an encoder folder. Raises LayerlockError where there is none."""
    path = Path(path)
    if (path / "checkpoints").is_dir() and not (path / "encoder").is_dir():
        raise LayerlockError(f"{path}: a run without an encoder yet; it is written when the run ends or is stopped")
    encoder = Encoder.from_pretrained(path / "encoder" if (path / "encoder").is_dir() else path, device=device)
    encoder.name = str(path)
    return encoder
