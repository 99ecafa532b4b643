"""Time and memory of a training step, stage by stage, beside what counting says.

    python benchmarks/step.py --recipe layerlock-tiny --batch 64 --steps 10

Random clips, so that nothing but the step is timed. Prints, for each stage: GFLOPs of a step by formula, the median
time with minimum and maximum, both relative to the first stage, and bytes of weights, gradients and optimizer state.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import layerlock
from layerlock.learn.learner import Learner
from layerlock.learn.plan import timeline
from layerlock.train.device import pick_device, pick_precision
from layerlock.train.loop import build_learner
from layerlock.train.optimizer import build_optimizer


def main() -> None:
    """Parses the options, goes through the stages in order, prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="layerlock-tiny")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    config = layerlock.recipe(given.recipe, batch=given.batch)
    device = pick_device(config.run.device)
    learner = build_learner(config, device)
    clip = config.clip
    video = torch.randint(0, 256, (given.batch, clip.frames, 3, clip.size, clip.size), dtype=torch.uint8, device=device)
    index = torch.arange(given.batch, device=device)
    precision = str(pick_precision(config.run, device)).removeprefix("torch.")
    machine = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{given.recipe}, batch {given.batch}, {precision}, {machine}")
    print("frozen targets      GFLOPs  ratio       ms      min      max  ratio       MB")
    first: tuple[float, float] | None = None
    for _, stage in timeline(config.build_plan(), config.steps):
        learner.enter(stage)
        optimizer = build_optimizer(learner, config.optim)

        def step(optimizer: torch.optim.Optimizer = optimizer) -> None:
            learner.step(video, index)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        times = timed(step, given.steps, device)
        flops, median = config.cost(stage).total * given.batch / 1e9, statistics.median(times) * 1e3
        first = first or (flops, median)
        print(
            f"{stage.frozen:6} {stage.targets:10} {flops:8.1f} {flops / first[0]:6.2f} {median:8.1f} "
            f"{min(times) * 1e3:8.1f} {max(times) * 1e3:8.1f} {median / first[1]:6.2f} "
            f"{state_bytes(learner, optimizer) / 1e6:8.1f}"
        )


def timed(step: Callable[[], None], count: int, device: torch.device) -> list[float]:
    """Seconds of each of `count` steps, after two that are not counted."""
    times = []
    for number in range(count + 2):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            times.append(time.perf_counter() - begun)
    return times


def state_bytes(learner: Learner, optimizer: torch.optim.Optimizer) -> int:
    """Weights, gradients of what is live, and optimizer state."""
    weights = sum(p.numel() * p.element_size() for p in learner.parameters())
    gradients = sum(p.numel() * p.element_size() for p in learner.live().values())
    moments = sum(v.numel() * v.element_size() for state in optimizer.state.values() for v in state.values())
    return weights + gradients + moments


if __name__ == "__main__":
    main()
