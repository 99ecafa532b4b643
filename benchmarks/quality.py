"""Quality over minutes and over clips: recipes, as they are or with other settings, read by frozen readouts.

    python benchmarks/quality.py mae-nano "mae-nano --masking.keep 0.4" --data VIDEOS --labelled VIDEOS [--test VIDEOS]
        --out DIR [--minutes 1 2.5 5 | --clips 64000] [--seeds 0 1 2] [--task action depth] [--baselines]

Each point is a run of its own, whose schedule ends where its budget does: a rate that is still high tells little of
what the run comes to. Minutes are those of one core, as the system counts them: other work counts only as far as it
slows this core down. With `--minutes` the number of its steps follows from the clips of a short run through
all stages of the same recipe. `--baselines` reads random weights, pixels and frame differences too, once for all
recipes of one shape. What is in DIR already is not done again, so that several processes can share a list, each with
its own seeds. Ends with DIR/quality.csv, DIR/quality.png and a table of the gains over the first recipe.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import machine

import layerlock
from layerlock.cli import pretrain_arguments
from layerlock.config import Config
from layerlock.evaluation.results import Evaluation, Row

PROBE_STEPS = 200
TASKS = ("action", "depth")
READOUTS: dict[str, dict[str, Any]] = {
    "solved": {"readout": "solved"},
    "changes": {"readout": "solved", "appearance": "no"},
    "linear": {"readout": "linear", "lrs": (3e-3,), "examples": 96_000, "augment": "no"},
    "attention": {
        "readout": "attention",
        "lrs": (3e-3,),
        "channels": 128,
        "heads": 4,
        "examples": 96_000,
        "augment": "no",
    },
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One encoder, or a baseline of the same evaluation, and how well it is read."""

    recipe: str
    seed: int
    minutes: float
    """of a core, in training, measured"""
    clips: int
    encoder: str
    task: str
    readout: str
    metric: str
    value: float
    low: float
    high: float

    @property
    def what(self) -> str:
        """What is measured."""
        return f"{self.task}, {self.readout}: {self.metric}"


def main() -> None:
    """Parses the options, trains, reads, and writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="a recipe's name, with options of `layerlock pretrain` behind it")
    for name in ("data", "labelled"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--test", help="without it a fifth of the labelled videos")
    parser.add_argument("--out", type=Path, required=True)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, nargs="+", default=())
    budget.add_argument("--clips", type=int, nargs="+", default=())
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--task", choices=TASKS, nargs="+", default=TASKS)
    parser.add_argument("--readout", choices=READOUTS, nargs="+", default=("solved",))
    parser.add_argument("--baselines", action="store_true")
    given = parser.parse_args()
    print(machine(torch.device("cpu")), flush=True)
    points = []
    for named in given.recipes:
        base = pretrain_arguments([*named.split(), "--data", given.data, "--out", str(given.out / "any")]).config
        budgets = [(f"{clips}clips", clips) for clips in given.clips] or [
            (f"{minutes:g}min", round(minutes * 60 * clips_a_second(base, place(given.out, named, "rate"))))
            for minutes in given.minutes
        ]
        for seed in given.seeds:
            for number, (budget_name, clips) in enumerate(budgets):
                folder = place(given.out, named, f"{budget_name}-{seed}")
                config = replace(base, steps=max(1, clips // base.batch), seed=seed, out=str(folder))
                minutes = train(config) / 60
                for task, readout in product(given.task, given.readout):
                    if task == "depth" and readout == "changes":  # readouts of depth see each token alone
                        continue
                    baselines = given.baselines and number == len(budgets) - 1
                    new = list(read(named, config, minutes, task, readout, given, baselines=baselines))
                    show(new)
                    points += new
    write_table(points, given.out / "quality.csv")
    draw(points, given.out / "quality.png")
    show_gains(points)


def place(out: Path, named: str, run: str) -> Path:
    """The folder of a run, named after what it is."""
    return out / re.sub(r"[^\w.]+", "_", named) / run


def clips_a_second(base: Config, folder: Path) -> float:
    """Of a short run through all stages of a recipe."""
    return PROBE_STEPS * base.batch / train(replace(base, steps=PROBE_STEPS, out=str(folder)))


def train(config: Config) -> float:
    """Trains, unless that is done, and returns the seconds of a core that it took, those of decoding among them."""
    taken = Path(config.out) / "seconds.json"
    if not taken.exists():
        begun = sum(os.times()[:4])
        layerlock.pretrain(config, resume=Path(config.out).exists(), quiet=True)
        taken.write_text(json.dumps(sum(os.times()[:4]) - begun))
    return float(json.loads(taken.read_text()))


def read(
    named: str, config: Config, minutes: float, task: str, readout: str, given: argparse.Namespace, *, baselines: bool
) -> Iterable[Point]:
    """The points of one encoder, and of its baselines where they are asked for."""
    out = Path(config.out) / f"{task}-{readout}"
    found = layerlock.evaluate(
        config.out,
        given.labelled,
        test_data=given.test,
        task=task,
        out=out,
        seed=config.seed,
        batch=64,
        depths=(0.5, 0.75),
        cache=True,
        baselines="yes" if baselines else "no",
        threads=config.run.threads,
        workers=config.run.workers,
        resume=out.exists(),
        quiet=True,
        **READOUTS[readout],
    )
    return (point(named, config, minutes, found, readout, row) for row in found.rows if row.kind != "constant")


def point(named: str, config: Config, minutes: float, found: Evaluation, readout: str, row: Row) -> Point:
    """One row of an evaluation; a baseline is trained for no time."""
    metric, value = next(iter(row.metrics.items()))
    return Point(
        recipe=named,
        seed=config.seed,
        minutes=0.0 if row.baseline else minutes,
        clips=0 if row.baseline else config.steps * config.batch,
        encoder=row.encoder if row.baseline else named,
        task=found.task,
        readout=readout,
        metric=metric,
        value=value.mean,
        low=value.low,
        high=value.high,
    )


def show(points: Iterable[Point]) -> None:
    """A line each for people."""
    for made in points:
        told = f"{made.encoder} | seed {made.seed} | {made.minutes:.1f} min, {made.clips:,} clips | {made.what}"
        print(f"{told} {made.value:.4g} [{made.low:.4g}, {made.high:.4g}]", flush=True)


def write_table(points: Sequence[Point], path: Path) -> None:
    """All points, a line each."""
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, list(asdict(points[0])))
        rows.writeheader()
        rows.writerows(map(asdict, points))


def show_gains(points: Sequence[Point]) -> None:
    """What each recipe is ahead of the first one at the same budget and seeds: mean and range over seeds."""
    trained = [made for made in points if made.clips]
    first = {(made.what, made.seed, made.clips): made for made in trained if made.recipe == trained[0].recipe}
    gains = defaultdict(list)
    for made in trained:
        if before := first.get((made.what, made.seed, made.clips)):
            gains[made.what, made.clips, made.recipe].append((made.value, made.value - before.value))
    print("measured | clips | recipe | seeds | mean | gain (least, most)")
    for (what, clips, recipe), found in gains.items():
        values, leads = zip(*found, strict=True)
        told = f"{statistics.mean(values):.4f} | {statistics.mean(leads):+.4f} ({min(leads):+.4f}, {max(leads):+.4f})"
        print(f"{what} | {clips:,} | {recipe} | {len(found)} | {told}")


def draw(points: Sequence[Point], path: Path) -> None:
    """A row of two pictures for each figure: over minutes and over clips, the mean over seeds and their range."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    measured = sorted({made.what for made in points})
    figure = Figure(figsize=(10, 4 * len(measured)), layout="constrained")
    axes = figure.subplots(len(measured), 2, squeeze=False)
    for row, what in enumerate(measured):
        own = [made for made in points if made.what == what]
        for column, over in enumerate(("minutes", "clips")):
            axis = axes[row][column]
            for recipe in dict.fromkeys(made.recipe for made in own):
                by_clips = defaultdict(list)
                for made in own:
                    if made.clips and made.recipe == recipe:
                        by_clips[made.clips].append(made)
                at = [statistics.mean(getattr(made, over) for made in same) for _, same in sorted(by_clips.items())]
                values = [[made.value for made in same] for _, same in sorted(by_clips.items())]
                (line,) = axis.plot(at, [statistics.mean(each) for each in values], marker="o", label=recipe)
                axis.fill_between(at, list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.2)
            for baseline in sorted({made.encoder for made in own if not made.clips}):
                level = statistics.mean(made.value for made in own if made.encoder == baseline)
                axis.axhline(level, linestyle=":", color="gray")
                axis.annotate(baseline, (0, level), xycoords=("axes fraction", "data"), fontsize=7)
            axis.set(xlabel={"minutes": "minutes of a core", "clips": "clips"}[over], xscale="log", ylabel=what)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
