"""Bytes kept for backward by the regimes of blockwise learning, at the fullest moment of a step.

    python benchmarks/blockwise_memory.py --batch 2 [--precision bf16]

DeiT-Small (384, 12 blocks, 6 heads) in four parts, a decoder of four blocks of 192 to each, tubelets of 8 x 16 x 16,
16 x 224 x 224 clips, tube masks that hide 0.9. A row for each regime and stage: megabytes kept for backward at the
fullest moment (the graph of a part is let go before the next is built, where no gradient crosses), the same relative to
end to end, gradients and optimizer state of what is trained, and the milliseconds of a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import begin, median_and_range, nbytes, options, random_clips, take_turns
from saved import saved_bytes
from step import Update

from layerlock.config import Config, RunConfig
from layerlock.data import ClipConfig
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plan import timeline
from layerlock.learn.plans import Blockwise
from layerlock.model.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.train.device import pick_precision
from layerlock.train.loop import build_learner

REGIMES = ("end-to-end", "deep-supervision", "simultaneous", "sequential")


def main() -> None:
    """Parses the options and prints the table."""
    given = options(__doc__, batch=2, rounds=3).parse_args()
    device = begin(given)
    run = RunConfig(device=given.device, precision=given.precision, compile="no")
    print(f"{given.batch} clips, {str(pick_precision(run, device)).removeprefix('torch.')}, {given.rounds} rounds")
    print("regime            blocks   saved MB  ratio   state MB  ms")
    first: int | None = None
    for regime in REGIMES:
        for update in updates_of(config_of(regime, given.batch, run), device):
            saved = saved_bytes(update, [update.learner])
            first = first or saved
            (times,) = take_turns([update], device, given.rounds, warmup=1)
            stage, gradients = update.learner.stage, update.learner.live().values()  # of one size with their weights
            moments = [v for state in update.optimizer.state.values() for v in state.values()]
            ms = median_and_range((t * 1e3 for t in times), ".0f")
            print(
                f"{regime:17} {stage.frozen + 1:2} to {stage.last:2} {saved / 1e6:8.1f} {saved / first:6.2f} "
                f"{sum(map(nbytes, [*gradients, *moments])) / 1e6:9.1f}  {ms}",
                flush=True,
            )


def updates_of(config: Config, device: torch.device) -> Iterator[Update]:
    """Of every stage, each entered when its turn comes."""
    stages, clips = timeline(config.build_plan(), config.steps), random_clips(config, device)
    learner = build_learner(config, device, stages[0][1])
    for _, stage in stages:
        yield Update(config, learner, stage, *clips)


def config_of(regime: str, batch: int, run: RunConfig) -> Config:
    """The geometry of the paper's larger model on 224 pixels."""
    return Config(
        steps=8,
        batch=batch,
        clip=ClipConfig(frames=16, size=224),
        model=vit("S", patch=(8, 16, 16), position="sincos", gelu="exact", final_norm=True),
        masking=TubeMasking(keep=0.1),
        decoder=SeparateDecoding(width=192, depth=4, heads=3, mlp=768),
        plan=Blockwise(regime=regime, parts=4),
        run=run,
    )


if __name__ == "__main__":
    main()
