"""What a sweep of readouts costs beside the encoder whose features it reads: ViT-B, clips of 16 x 224 x 224.

    python benchmarks/readout.py [--threads 4] [--device cuda] [--batch 32] [--depth-readouts 1 3 18]

A step is one pass of the encoder, then forward, backward and AdamW of every readout. For actions (768 channels, 12
heads, one query, 174 classes) prints the step with 1 and with 18 readouts (6 depths x 3 learning rates), and the same
where keys and values of all tokens are made, as the paper writes it; for depth (1024 channels, 16 heads, 6272 queries
of 128 outputs) the step with as many readouts as are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from measure import begin, options

from layerlock.data.index import Index
from layerlock.data.targets import Column
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.readouts import Candidate, candidates_of
from layerlock.evaluation.splits.split import Split, Splits
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks import TASKS, ReadoutTask
from layerlock.features import Reader
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.readout import AttentionReadout
from layerlock.model.sizes import vit
from layerlock.train.device import pick_precision

SHAPE = ClipShape(frames=16, stride=2, size=224)
DEPTHS = (0.25, 0.5, 0.75, 0.85, 0.95, 1.0)
LRS = (1e-4, 3e-4, 1e-3)
CLASSES = 174


def main() -> None:
    """Times both tasks."""
    parser = options(__doc__, batch=2, rounds=5)
    parser.add_argument("--depth-readouts", type=int, nargs="*", default=[1, 3])
    given = parser.parse_args()
    device = begin(given)
    encoder = Encoder.random(vit("B"), SHAPE)
    run = EvaluateConfig(device=given.device, precision=given.precision).run()
    encoder.prepare(device, pick_precision(run, device))
    video = torch.randint(0, 256, (given.batch, 16, 3, 224, 224), dtype=torch.uint8, device=device)
    print(f"{encoder.vit.compute}, batch {given.batch}, fastest of {given.rounds} rounds, seconds a step")
    reader = reader_of(encoder, candidates_of(config(18), {"encoder": encoder}))
    alone = seconds(lambda: reader.read(video), device, given.rounds)
    print(f"encoder alone {alone:30.3f}")

    label = torch.arange(given.batch, device=device) % CLASSES
    one, all_18 = (action(encoder, video, label, count, given.rounds) for count in (1, 18))
    print(f"actions: 1 readout {one:25.3f}\n        18 readouts {all_18:24.3f}   {all_18 / one:.2f} x one")
    folded = AttentionReadout._attended_by_few
    AttentionReadout._attended_by_few = AttentionReadout._attended  # type: ignore[method-assign]
    written = action(encoder, video, label, 18, given.rounds)
    AttentionReadout._attended_by_few = folded  # type: ignore[method-assign]
    print(f"        18 readouts, all keys {written:14.3f}   {written / one:.2f} x one")

    depth = torch.rand(given.batch, 16, 224, 224, device=device) * 5 + 1
    for count in given.depth_readouts:
        took = step_seconds(encoder, task_of(config(count, task="depth"), encoder), count, video, depth, given.rounds)
        print(f"depth: {count:2} readouts {took:25.3f}   {took / alone:.2f} x the encoder")


def config(count: int, **changes: str) -> EvaluateConfig:
    """A sweep of 1, 3 (one depth), or 18 readouts."""
    lrs = LRS[:1] if count == 1 else LRS
    return EvaluateConfig(readout="attention", depths=DEPTHS if count == 18 else (1.0,), lrs=lrs, **changes)  # type: ignore[arg-type]


def action(encoder: Encoder, video: torch.Tensor, label: torch.Tensor, count: int, rounds: int) -> float:
    """Seconds of a step with so many readouts of the size for Something-Something."""
    sizes = EvaluateConfig(channels=768, heads=12)
    return step_seconds(encoder, task_of(sizes, encoder), count, video, label, rounds)


def task_of(config: EvaluateConfig, encoder: Encoder) -> ReadoutTask:
    """A task for data of so many classes."""
    label = Column(values=(), classes=tuple(map(str, range(CLASSES))))
    split = Split(index=Index(root="", layout="", videos=(), targets={"label": label}))
    splits = Splits(train=split, validation=split, test=split, classes=split.index.classes, layout="", how="")
    task = TASKS[config.task](config, splits, encoder)
    assert isinstance(task, ReadoutTask)
    return task


def reader_of(encoder: Encoder, members: Sequence[Candidate]) -> Reader:
    """The encoder as deep as the deepest of some readouts."""
    return Reader({"encoder": encoder}, [member.place for member in members])


def step_seconds(
    encoder: Encoder, task: ReadoutTask, count: int, video: torch.Tensor, target: torch.Tensor, rounds: int
) -> float:
    """Seconds of a step of a sweep."""
    encoders, device = {"encoder": encoder}, video.device
    members = candidates_of(config(count), encoders)
    assert len(members) == count
    sweep, reader = Sweep(config(count), task, members, encoders, device), reader_of(encoder, members)
    return seconds(lambda: sweep.train_step(reader.read(video), target), device, rounds)


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The fastest of some runs, after one that is not counted."""
    taken = []
    for _ in range(1 + rounds):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


if __name__ == "__main__":
    main()
