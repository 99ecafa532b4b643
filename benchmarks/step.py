"""Time and memory of a training step, stage by stage, beside what counting says.

    python benchmarks/step.py --recipe layerlock-tiny --batch 64 --rounds 10 [--threads 1] [--device cpu]
                              [--keep 0.25 0.1] [--predict 1 0.25]

Random clips, so that nothing but the step is timed: masks, gradients, update, teacher. One learner goes through the
stages in order, as a run does. A row for each: GFLOPs of a step by formula (all, encoder, decoder) and by torch's
counter, milliseconds (median, minimum, maximum), FLOPs and time relative to the first stage, megabytes kept for
backward at the fullest moment, megabytes of weights, gradients and optimizer state, and on CUDA the peak of all memory
of one step. With several shares of tokens that are kept, or predicted, a table for each pair.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import product

import torch
from measure import (
    begin,
    counted_flops,
    device_peak,
    median_and_range,
    options,
    random_clips,
    state_bytes,
    take_turns,
)
from saved import saved_bytes
from torch import Tensor

import layerlock
from layerlock.config import Config
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage, timeline
from layerlock.train.device import pick_precision
from layerlock.train.loop import build_learner
from layerlock.train.optimizer import build_optimizer

COUNTED = 96
"""clips whose FLOPs are counted: masks of V-JEPA differ in size from group to group"""


class Update:
    """All that one update of the training loop does with a learner's weights, in one stage."""

    def __init__(self, config: Config, learner: Learner, stage: Stage, video_btchw: Tensor, index_b: Tensor) -> None:
        learner.enter(stage)
        self.learner, self.config = learner, config
        self.video_btchw, self.index_b = video_btchw, index_b
        self.optimizer = build_optimizer(learner, config.optim)

    def __call__(self) -> None:
        self.learner.step(self.video_btchw, self.index_b)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.after_step(self.config.optim.teacher_decay)


def main() -> None:
    """Parses the options, goes through the stages in order and prints a row for each."""
    parser = options(__doc__, batch=64, rounds=10)
    parser.add_argument("--recipe", default="layerlock-tiny")
    parser.add_argument("--compile", default="no", choices=("auto", "yes", "no"))
    parser.add_argument("--keep", type=float, nargs="+", default=[None], help="masking.keep in place of the recipe's")
    parser.add_argument("--predict", type=float, nargs="+", default=[None], help="masking.predict, likewise")
    given = parser.parse_args()
    device = begin(given)
    config = layerlock.recipe(given.recipe)
    run = replace(config.run, device=given.device, precision=given.precision, compile=given.compile)
    config = replace(config, batch=given.batch, run=run)
    precision = str(pick_precision(run, device)).removeprefix("torch.")
    print(f"{given.recipe}, {given.batch} clips, {precision}, compile {run.compile}, {given.rounds} rounds")
    for keep, predict in product(given.keep, given.predict):
        shares = {name: value for name, value in (("keep", keep), ("predict", predict)) if value is not None}
        if not all(hasattr(config.masking, name) for name in shares):
            parser.error(f"{type(config.masking).__name__} has no {' and no '.join(shares)}")
        made = replace(config, masking=replace(config.masking, **shares))
        made.check()
        for counts in made.masking.counts(made.grid):
            print(
                f"{made.masking}: of {made.tokens} tokens {counts.context:.4g} seen, {counts.predicted:.4g} predicted"
            )
        show_stages(made, given.rounds, device)


def show_stages(config: Config, rounds: int, device: torch.device) -> None:
    """The table."""
    stages = timeline(config.build_plan(), config.steps)
    learner = build_learner(config, device, stages[0][1])
    video_btchw, index_b = random_clips(config, device)
    print(
        "frozen targets        GFLOPs encoder decoder counted  ratio  "
        "ms                        ratio   saved   state   peak MB"
    )
    first: tuple[float, float] | None = None
    for _, stage in stages:
        update = Update(config, learner, stage, video_btchw, index_b)
        (times,) = take_turns([update], device, rounds)
        cost, median = config.cost(stage), statistics.median(times)
        gflops, encoder, decoder = (n * config.batch / 1e9 for n in (cost.total, cost.encoder, cost.decoder))
        first = first or (gflops, median)
        counted = counted_flops(config, stage, COUNTED) * config.batch / 1e9
        saved, state = saved_bytes(update, [learner]), state_bytes([learner], update.optimizer)
        print(
            f"{stage.frozen:6} {stage.targets[:12]:12} {gflops:9.2f} {encoder:7.2f} {decoder:7.2f} {counted:7.2f} "
            f"{gflops / first[0]:6.2f}  "
            f"{median_and_range((t * 1e3 for t in times), '.1f'):25} {median / first[1]:5.2f} "
            f"{saved / 1e6:7.1f} {state / 1e6:7.1f} {device_peak(update, device):>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
