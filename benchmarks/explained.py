"""What heads explain of their latent targets at the end of a stage, beside the closed-form fit that they began with.

    layerlock pretrain layerlock-nano --data VIDEOS --out RUN --run.checkpoint-every 150 --run.keep 1000
    python benchmarks/explained.py RUN... [--batches 64]

Both are measured on the same clips and masks, which no step of the run had: those of the steps that would come next.
The fit is made again from the checkpoint at the switch, on the batches that the run made it on. A line for each
target: the shares explained, and their difference with twice its standard error over batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from layerlock.config import Config, load_config
from layerlock.data import batches, open_source
from layerlock.data.augment import augment
from layerlock.encoders.run import checkpoints_of
from layerlock.learn.head_start import batches_needed, start_heads
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage, stage_from, timeline
from layerlock.train import checkpoint
from layerlock.train.loop import build_learner

DEVICE = torch.device("cpu")
Clips = tuple[Tensor, Tensor]


def main() -> None:
    """Parses the options; a line for each target of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--batches", type=int, default=64)
    given = parser.parse_args()
    print("run | steps | target | fit | end | difference")
    for run in given.runs:
        config = load_config(run / "config.json")
        coming = Coming(config)
        held_out = list(coming.batches(config.steps, given.batches))
        stages = timeline(config.check(), config.steps)
        ends = [*(step for step, _ in stages[1:]), config.steps]
        for (begin, stage), end in zip(stages, ends, strict=True):
            if not stage.latent:
                continue
            fitted = at_checkpoint(config, run, begin)
            fitted.enter(stage)
            needed = batches_needed(fitted, config.batch, solve=True)
            start_heads(fitted, coming.batches(begin, needed), solve=True)
            trained = at_checkpoint(config, run, end)
            shares = {name: [share(learner, held_out, name) for learner in (fitted, trained)] for name in labels(stage)}
            for name, (fit_n, end_n) in shares.items():
                gain_n = end_n - fit_n
                error = 2 * float(gain_n.std()) / len(gain_n) ** 0.5
                fit, trained_to, gain = (float(x_n.mean()) for x_n in (fit_n, end_n, gain_n))
                told = f"{fit:.4f} | {trained_to:.4f} | {gain:+.4f} +- {error:.4f}"
                print(f"{run.name} | {begin} to {end} | {name} | {told}", flush=True)


class Coming:
    """The clips of a run's steps, as the model sees them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.source = open_source(config.data, config.clip, config.seed, root=config.data_root)

    def batches(self, step: int, count: int) -> Iterator[Clips]:
        """Those of `count` steps from `step` on, with their sample indices."""
        found = batches(self.source, batch=self.config.batch, start=step, stop=step + count, workers=1)
        return ((augment(batch, self.config.clip, self.config.seed), batch.index_b) for batch in found)


def at_checkpoint(config: Config, run: Path, step: int) -> Learner:
    """The learner of a run after `step` steps, in the stage that it was in."""
    found = checkpoints_of(run / "checkpoints")
    if step not in found:
        raise SystemExit(f"{run}: no checkpoint of step {step}; train with --run.checkpoint-every and --run.keep")
    state = checkpoint.read(found[step])
    learner = build_learner(config, DEVICE, stage_from(state.stage))
    checkpoint.restore(state, learner, config.optim)
    return learner


def labels(stage: Stage) -> list[str]:
    """The latent losses of a stage."""
    return [stage.label(tap) for tap in stage.latent]


@torch.no_grad()
def share(learner: Learner, held_out: list[Clips], label: str) -> Tensor:
    """What a head explains of its target in each batch, `[batches]`, by the target's variance over all batches."""
    moments = torch.stack([moments_of(learner, clips)[label] for clips in held_out])
    mean_p, square_p, _ = moments.mean(0)
    variance = (square_p - mean_p.square()).sum()
    return 1 - moments[:, 2].sum(1) / variance


def moments_of(learner: Learner, clips: Clips) -> dict[str, Tensor]:
    """`Prediction.moments` of each loss."""
    video_btchw, index_b = clips
    parts = learner.masking.parts(index_b)
    found: dict[str, Tensor] = {}
    for part in parts:
        for group in learner.groups(video_btchw[part], index_b[part]):
            for prediction in group.predictions:
                label = learner.stage.label(prediction.tap)
                weight = len(index_b[part]) / len(index_b)
                found[label] = found.get(label, 0) + prediction.moments() * weight
    return found


if __name__ == "__main__":
    main()
