"""First light: a small encoder trained on unlabelled videos, and what frozen readouts find in it.

    python examples/demo.py --out runs/demo --seed 0

Writes three sets of videos of the synthetic world and trains a recipe on the first, as on anybody's folder of H.264
files. Then actions and depth are read from the frozen encoder by logistic and ridge regression, which are fitted to the
second set and tested on the third; the same is done with random weights of the same shape, raw pixels and frame
differences. What an earlier call has left is kept, so that a demo that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import layerlock
from layerlock.show import show_evaluation

VIDEOS = {"unlabelled": 3_000, "labelled": 2_400, "test": 1_000}
TASKS = ("action", "depth")


def main() -> None:
    """Parses the options and runs the four parts, each with its time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="mae-nano")
    given = parser.parse_args()

    run = given.out / f"run-{given.seed}"
    folders = {name: given.out / f"{name}-{given.seed}" for name in VIDEOS}
    config = layerlock.recipe(given.recipe, seed=given.seed, data=str(folders["unlabelled"]), out=str(run))
    with timed("videos"):
        for number, (name, count) in enumerate(VIDEOS.items()):
            world = 1_000 * (number + 1) + given.seed
            layerlock.synth(folders[name], videos=count, seed=world, size=config.clip.resize_side)
    with timed("training"):
        outcome = layerlock.pretrain(config, resume=run.exists())
    stop_if_told(outcome.signal)
    for task in TASKS:
        out = given.out / f"{task}-{given.seed}"
        with timed(task):
            found = layerlock.evaluate(
                run,
                folders["labelled"],
                test_data=folders["test"],
                task=task,
                out=out,
                resume=out.exists(),
                seed=given.seed,
                readout="solved",
                depths=(0.5, 0.75),
                cache=True,
            )
        stop_if_told(found.signal)
        show_evaluation(found)
    print(f"reports: {run / 'report.html'}, {given.out}/*-{given.seed}/report.html")


def stop_if_told(signal: int | None) -> None:
    """Ends the demo after Ctrl-C or SIGTERM; what is done is saved, and the same command continues from there."""
    if signal is not None:
        raise SystemExit(128 + signal)


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Says how long a part took."""
    begun = time.perf_counter()
    yield
    print(f"{part}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
