"""The smallest things worth testing: a backbone of six blocks, clips of 36 tokens, a source that renders nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data import ClipConfig, Sample, Source
from layerlock.data.targets import Kind
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Learner
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.plans import Progressive
from layerlock.learn.targets import FeatureTarget
from layerlock.model.vit import ViTConfig

FIXTURES = Path(__file__).parent / "fixtures"
CLIP = ClipConfig(frames=8, stride=1, size=24, resize=1.25, flip=True)
MODEL = ViTConfig(width=24, depth=6, mlp=48, heads=2, patch=(2, 8, 8))
GRID = (4, 3, 3)
TOKENS = 36
ENCODER_DEPTH = 4
MASKING = RandomMasking(keep=0.25)
DECODING = BackboneDecoding(blocks=2)
PIXEL_STAGE = Stage(frozen=0, last=6, taps=(Tap(depth=ENCODER_DEPTH),))
LOCK = Progressive(target="frozen", start=0.34, interval=0.25, first=1, jump=1, last=2)


def sample_of(source: Source, index: int, attempt: int = 0) -> Sample:
    """The clip of one global sample index, as in `Source.samples`."""
    group, place = divmod(index, source.clip.per_decode)
    return source.samples(group, attempt)[place]


def learner(
    model: ViTConfig = MODEL, decoding: BackboneDecoding = DECODING, stage: Stage = PIXEL_STAGE, **changes: Any
) -> Learner:
    """A learner whose every parameter is away from its first value, so that none can be left out unnoticed."""
    made = Learner(model, GRID, MASKING, decoding, stage, seed=3, **changes)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return made


def lock_stage(*layers: int, frozen: int | None = None, **tap: Any) -> Stage:
    """A stage that predicts frozen layers, all blocks up to the deepest frozen."""
    taps = tuple(Tap(depth=ENCODER_DEPTH, target=FeatureTarget((layer,)), **tap) for layer in layers)
    return Stage(frozen=max(layers) if frozen is None else frozen, last=6, taps=taps)


def video(batch: int, seed: int = 0) -> Tensor:
    """Clips of noise, uint8 `[B, 8, 3, 24, 24]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 8, 3, 24, 24), generator=generator, dtype=torch.uint8)


@dataclass(frozen=True)
class Noise:
    """A source of smooth noise that costs next to nothing; a file at fault at sample `skips`."""

    clip: ClipConfig = CLIP
    skips: int = -1
    rejected: tuple[tuple[str, str], ...] = ()
    fingerprint: str = "noise"

    @property
    def targets(self) -> dict[str, Kind]:
        return {}

    def __len__(self) -> int:
        return 1_000

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        together = self.clip.per_decode
        return [self.sample(index) for index in range(group * together, (group + 1) * together)]

    def sample(self, index: int) -> Sample:
        rng, side = np.random.default_rng(index), self.clip.resize_side
        coarse = rng.integers(0, 256, (self.clip.frames, 3, side // 5, side // 5), dtype=np.uint8)
        return Sample(
            index=index,
            name=self.name(index),
            video_tchw=torch.from_numpy(coarse.repeat(5, axis=2).repeat(5, axis=3)),
            crop=(*rng.integers(side - self.clip.size + 1, size=2).tolist(), self.clip.size, self.clip.size),
            flip=bool(rng.integers(2)),
            skipped=(("broken.mp4", "it is empty"),) if index == self.skips else (),
        )

    def name(self, index: int, attempt: int = 0) -> str:
        return self.video_name(index)

    def video_name(self, video: int) -> str:
        return f"noise/{video}"

    def view(self, video: int) -> Sample:
        return self.sample(video)


def config(out: Path, **changes: Any) -> Config:
    """A run of twelve updates with two switches, a line for each update, a checkpoint every four."""
    fields: dict[str, Any] = {
        "recipe": "test",
        "out": str(out),
        "steps": 12,
        "batch": 4,
        "clip": CLIP,
        "model": MODEL,
        "masking": MASKING,
        "decoder": DECODING,
        "plan": LOCK,
        "optim": OptimConfig(lr=1e-3, warmup=0.2, mini_warmup=0.1),
        "run": run_config(),
    }
    return Config(**(fields | changes))


def run_config(**changes: Any) -> RunConfig:
    """On the CPU, in float32, without workers."""
    fields: dict[str, Any] = {
        "device": "cpu",
        "precision": "fp32",
        "workers": 0,
        "log_every": 1,
        "checkpoint_every": 4,
        "keep": 2,
    }
    return RunConfig(**(fields | changes))


class Calls(TorchFunctionMode):
    """Torch's functions as they are called: name, type and number of elements of the first argument."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, torch.dtype | None, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        self.seen.append((func.__name__, None, 0) if first is None else (func.__name__, first.dtype, first.numel()))
        return func(*args, **(kwargs or {}))
