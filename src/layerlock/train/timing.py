"""Steps of every stage, timed on this machine with random clips."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from layerlock.config import Config
from layerlock.data import Batch
from layerlock.errors import LayerlockError
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage
from layerlock.learn.shares import shared_step
from layerlock.process import keep_freed_memory
from layerlock.progress import Progress
from layerlock.train.device import is_out_of_memory, pick_device, set_threads
from layerlock.train.loop import build_learner
from layerlock.train.optimizer import build_optimizer

ROUNDS = 3
"""micro-batches that are timed in each stage, after one that is not"""


def step_seconds(config: Config, stages: Sequence[Stage], *, quiet: bool = False) -> list[float]:
    """Seconds of a step in each of `stages`, which a run goes through in this order: the median time of a micro-batch
    times their number, and that of an update. Reading clips and logging are not timed.

    Raises LayerlockError where the machine has too little memory.
    """
    device = pick_device(config.run.device)
    keep_freed_memory(device)
    set_threads(config.run.threads, device)
    batch = _random(config, config.batch // config.optim.accumulate)
    found = []
    try:
        learner = build_learner(config, device, stages[0])
        with Progress("timing stages", quiet) as progress:
            for number, stage in enumerate(stages):
                learner.enter(stage)
                found.append(_timed(config, learner, batch, device))
                progress(number + 1, len(stages))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise LayerlockError(
            f"out of memory on {device}; try a larger --optim.accumulate, a smaller --batch, or --run.recompute"
        ) from None
    return found


def _timed(config: Config, learner: Learner, batch: Batch, device: torch.device) -> float:
    optimizer, gradients, updates = build_optimizer(learner, config.optim), [], []
    for _ in range(ROUNDS + 1):
        begun = _now(device)
        if shared_step(learner, batch, lambda part: part.video_btchw) is None:
            learner.step(batch.video_btchw.to(device), batch.index_b)
        learned = _now(device)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        learner.after_step(config.optim.teacher_decay)
        gradients.append(learned - begun)
        updates.append(_now(device) - learned)
    return config.optim.accumulate * statistics.median(gradients[1:]) + statistics.median(updates[1:])


def _now(device: torch.device) -> float:
    """Seconds, when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _random(config: Config, clips: int) -> Batch:
    clip, generator = config.clip, torch.Generator().manual_seed(0)
    shape = (clips, clip.frames, 3, clip.size, clip.size)
    return Batch(
        index_b=torch.arange(clips),
        names=("random",) * clips,
        video_btchw=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        crop_b4=torch.zeros(clips, 4),
        flip_b=torch.zeros(clips, dtype=torch.bool),
        size=clip.size,
    )


def machine_in_words(device: torch.device) -> str:
    """The processor or GPU that is computed on, with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {torch.get_num_threads()} threads"
