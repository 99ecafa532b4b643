"""What freezing with pixels saves under other assumptions than the recipes', beside LayerLock's 9 %, 19 % and 16 %.

    python benchmarks/freezing_saves.py

Section 4.1 of the paper (arXiv 2509.10156) prints 9 % of FLOPs and 16 % of peak memory for a ViT-G on 250 M clips, and
19 % of FLOPs on 1 B. A row for each assumption: FLOPs saved on 250 M clips under Table 10's schedule, on 1 B under
Table 8's, and on 1 B under Table 10's in steps (5 blocks from step 25k on, 4 more every 20k) up to the block named
last; then peak memory saved in the last stage of the 250 M run, by clips that a device computes at once. All is
counted.
"""

from __future__ import annotations

from dataclasses import replace

import layerlock
from layerlock.config import Config
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Progressive
from layerlock.recipes.record import freezing

LAST = (17, 25, 33)
DEVICES = (1, 8, 16, 32, 64, 128, 256)


def main() -> None:
    """Prints both tables."""
    short, long = layerlock.recipe("vit-g-250m-freeze"), layerlock.recipe("4ds-g")
    tabled = Progressive(**freezing(long.steps, start=160_000, interval=10_000, last=32))
    stretched = [
        Progressive(**freezing(long.steps, start=25_000, interval=20_000, first=5, jump=4, last=last)) for last in LAST
    ]
    runs = [short, *(replace(long, plan=plan) for plan in (tabled, *stretched))]
    print(f"FLOPs saved, %{'':39} 250 M  1 B, Table 8  " + "  ".join(f"1 B to {last}" for last in LAST))
    for name, change in {
        "as in the recipes": lambda run: run,
        "the last block decodes, not the last 4": lambda run: replace(run, decoder=BackboneDecoding(blocks=1)),
        "the last 2 blocks decode": lambda run: replace(run, decoder=BackboneDecoding(blocks=2)),
        "29 % of the masked positions are decoded": fewer_decoded,
        "20 % of the tokens are seen, not 5 %": lambda run: replace(run, masking=RandomMasking(keep=0.2)),
    }.items():
        saved = [100 * saved_flops(change(run)) for run in runs]
        print(f"{name:53} {saved[0]:5.1f}  {saved[1]:12.1f}  " + "  ".join(f"{each:9.1f}" for each in saved[2:]))
    print("\npeak memory saved, %; in brackets the baseline's, GB")
    print("clips at once     bfloat16          float32           bfloat16, recomputed")
    for gpus in DEVICES:
        changed = (short.run, replace(short.run, precision="fp32"), replace(short.run, recompute=True))
        cells = [saved_memory(replace(short, run=run), gpus) for run in changed]
        print(f"{short.batch // gpus:13}     " + "  ".join(f"{cell:16}" for cell in cells))


def fewer_decoded(run: Config) -> Config:
    """The loss at 29 % of the masked positions, which alone are decoded."""
    assert isinstance(run.plan, Progressive)
    return replace(run, masking=RandomMasking(keep=0.05, predict=0.29), plan=replace(run.plan, masked=True))


def saved_flops(run: Config) -> float:
    """The share that freezing saves of the FLOPs of a run in its first stage."""
    found = layerlock.plan(run)
    return 1 - found.total.flops / found.baseline.flops


def saved_memory(run: Config, gpus: int) -> str:
    """The share of the first stage's peak that the last one saves, and that peak."""
    found = layerlock.plan(run, gpus=gpus)
    return f"{100 * (1 - found.total.last_peak / found.baseline.last_peak):.1f} ({found.baseline.last_peak / 1e9:,.0f})"


if __name__ == "__main__":
    main()
