"""What tests of evaluations share: a tiny encoder, made-up splits, small videos of the synthetic world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny import MODEL

from layerlock.data.decode.video import VideoInfo
from layerlock.data.index import Index
from layerlock.data.targets import Column
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.splits.split import Split, Splits
from layerlock.evaluation.tasks import TASKS
from layerlock.evaluation.tasks.task import TRAINING
from layerlock.model.encoder import ClipShape, Encoder

SHAPE = ClipShape(frames=8, stride=1, size=24)


def tiny_encoder(seed: int = 2) -> Encoder:
    """Six blocks, 36 tokens, every parameter away from its first value."""
    encoder = Encoder.random(MODEL, SHAPE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return encoder


def settings(out: Path | str = "out", **changes: Any) -> EvaluateConfig:
    """A short evaluation on the CPU, in float32, without workers."""
    fields: dict[str, Any] = {
        "encoder": "tiny",
        "data": "nowhere",
        "out": str(out),
        "depths": (0.5, 1.0),
        "lrs": (1e-3, 3e-3),
        "channels": 16,
        "heads": 2,
        "examples": 48,
        "batch": 8,
        "workers": 0,
        "device": "cpu",
        "precision": "fp32",
    }
    if changes.get("readout") == "linear":
        fields = {name: value for name, value in fields.items() if name not in ("channels", "heads")}
    if changes.get("task") == "retrieval" or changes.get("readout") == "solved":
        fields = {name: value for name, value in fields.items() if name not in TRAINING}
    return EvaluateConfig(**(fields | changes))


def index(labels: list[int], classes: int = 0, *, root: str = "/data", **facts: Any) -> Index:
    """An index of videos that are not there."""
    fields = {"frames": 40, "fps": 25.0, "width": 32, "height": 32, "seconds": 1.6, "codec": "h264", "rotation": 0}
    videos = tuple(
        VideoInfo(path=f"{root}/{row:03d}.mp4", **(fields | facts))  # type: ignore[arg-type]
        for row in range(len(labels))
    )
    names = tuple(f"class {number}" for number in range(classes))
    return Index(
        root=root, layout="class folders", videos=videos, targets={"label": Column(values=tuple(labels), classes=names)}
    )


def clips(count: int, seed: int = 0) -> torch.Tensor:
    """Noise, uint8 `[B, 8, 3, 24, 24]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 8, 3, 24, 24), generator=generator, dtype=torch.uint8)


def task(config: EvaluateConfig, *, classes: int = 4, layout: str = "class folders", clip: ClipShape = SHAPE) -> Any:
    """The task of a config, for made-up data of so many classes and an encoder of such clips."""
    found = index(list(range(classes)), classes)
    names = found.classes
    numbers = Column(values=tuple(float(label) for label in found.labels))
    split = Split(index=replace(found, targets={**found.targets, "number": numbers}))
    splits = Splits(train=split, validation=split, test=split, classes=names, layout=layout, how="made up")
    return TASKS[config.task](config, splits, Encoder.random(MODEL, clip))
