"""Quality over minutes and over clips: recipes trained for budgets of time and read by frozen readouts.

    python benchmarks/quality.py layerlock-nano mae-nano --data VIDEOS --labelled VIDEOS --test VIDEOS --out DIR
        [--minutes 1 2.5 5] [--seeds 0 1 2] [--task action]

Each point is a run of its own, whose schedule ends where its budget does: a rate that is still high tells little of
what the run comes to. The number of its steps follows from the clips a second of a short run through all stages of the
same recipe. Baselines (random weights, pixels, frame differences) are read once a recipe, with the longest budget.
What is in DIR already is not done again. Ends with DIR/quality.csv and DIR/quality.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from measure import machine

import layerlock
from layerlock.config import Config
from layerlock.evaluation.results import Evaluation

PROBE_STEPS = 200
READOUTS = {
    "action": {"readout": "attention", "lrs": (3e-3,), "channels": 128, "heads": 4, "examples": 96_000, "batch": 64},
    "depth": {"readout": "linear", "lrs": (1e-2,), "examples": 64_000, "batch": 64},
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One encoder, or a baseline of the same evaluation, and how well it is read."""

    recipe: str
    seed: int
    minutes: float
    """of training, measured"""
    clips: int
    encoder: str
    task: str
    metric: str
    value: float
    low: float
    high: float


def main() -> None:
    """Parses the options, trains, reads, and writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    for name in ("data", "labelled", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=(1.0, 2.5, 5.0))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--task", choices=READOUTS, nargs="+", default=("action",))
    given = parser.parse_args()
    print(machine(torch.device("cpu")))
    points = []
    for name in given.recipes:
        rate = clips_a_second(name, given)
        for minutes in given.minutes:
            for seed in given.seeds:
                out = given.out / f"{name}-{minutes:g}min-{seed}"
                config = layerlock.recipe(name, data=given.data, seed=seed, out=str(out))
                config = replace(config, steps=max(1, round(rate * minutes * 60 / config.batch)))
                taken = train(config) / 60
                for task in given.task:
                    whole = minutes == max(given.minutes)
                    points += read(config, taken, task, given, baselines=whole)
                    show(points[-1])
    write_table(points, given.out / "quality.csv")
    draw(points, given.out / "quality.png")


def clips_a_second(name: str, given: argparse.Namespace) -> float:
    """Of a short run through all stages of a recipe."""
    out = given.out / f"{name}-rate"
    config = replace(layerlock.recipe(name, data=given.data, out=str(out)), steps=PROBE_STEPS)
    return PROBE_STEPS * config.batch / train(config)


def train(config: Config) -> float:
    """Trains, or goes on, and returns the seconds that training took, without what comes before and after it."""
    place = Path(config.out) / "seconds.json"
    if not place.exists():
        begun = time.perf_counter()
        layerlock.pretrain(config, overwrite=True, quiet=True)
        place.write_text(json.dumps(time.perf_counter() - begun))
    return float(json.loads(place.read_text()))


def read(config: Config, minutes: float, task: str, given: argparse.Namespace, *, baselines: bool) -> list[Point]:
    """The points of one encoder, and of its baselines where they are asked for."""
    found = layerlock.evaluate(
        config.out,
        given.labelled,
        test_data=given.test,
        task=task,
        out=f"{config.out}/{task}",
        seed=config.seed,
        depths=(0.5, 0.75),
        augment="no",
        cache=True,
        baselines="yes" if baselines else "no",
        resume=(Path(config.out) / task).exists(),
        quiet=True,
        **READOUTS[task],
    )
    return [point(config, minutes, task, found, number) for number in range(len(found.rows))]


def point(config: Config, minutes: float, task: str, found: Evaluation, number: int) -> Point:
    """One row of an evaluation; a baseline is trained for no time."""
    row = found.rows[number]
    metric, value = next(iter(row.metrics.items()))
    low, high = (value.low, value.high)
    trained = not row.baseline
    return Point(
        recipe=config.recipe,
        seed=config.seed,
        minutes=minutes if trained else 0.0,
        clips=config.steps * config.batch if trained else 0,
        encoder=row.encoder if row.baseline else config.recipe,
        task=task,
        metric=metric,
        value=value.mean,
        low=low,
        high=high,
    )


def show(made: Point) -> None:
    """A line for people."""
    told = f"{made.recipe} seed {made.seed}: {made.minutes:.1f} min, {made.clips:,} clips"
    print(
        f"{told}: {made.encoder} {made.task} {made.metric} {made.value:.4g} [{made.low:.4g}, {made.high:.4g}]",
        flush=True,
    )


def write_table(points: list[Point], path: Path) -> None:
    """All points, a line each."""
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, list(asdict(points[0])))
        rows.writeheader()
        rows.writerows(map(asdict, points))


def draw(points: list[Point], path: Path) -> None:
    """A row of two pictures for each task: over minutes and over clips, the mean over seeds and their range."""
    from matplotlib.figure import Figure

    tasks = sorted({made.task for made in points})
    figure = Figure(figsize=(10, 4 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 2, squeeze=False)
    for row, task in enumerate(tasks):
        own = [made for made in points if made.task == task]
        for column, what in enumerate(("minutes", "clips")):
            place = axes[row][column]
            for recipe in sorted({made.recipe for made in own}):
                by_clips = defaultdict(list)
                for made in own:
                    if made.encoder == recipe == made.recipe:
                        by_clips[made.clips].append(made)
                at = [statistics.mean(getattr(made, what) for made in same) for _, same in sorted(by_clips.items())]
                values = [[made.value for made in same] for _, same in sorted(by_clips.items())]
                (line,) = place.plot(at, [statistics.mean(each) for each in values], marker="o", label=recipe)
                place.fill_between(
                    at, list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.2
                )
            for baseline in sorted({made.encoder for made in own if not made.clips}):
                level = statistics.mean(made.value for made in own if made.encoder == baseline)
                place.axhline(level, linestyle=":", color="gray")
                place.annotate(baseline, (0, level), xycoords=("axes fraction", "data"), fontsize=7)
            place.set(xlabel=f"{what} of training", ylabel=f"{task}: {own[0].metric}")
            place.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
