"""Whether the figures of `run.watch` tell what a probe of other videos finds: Spearman correlations, by run.

    layerlock pretrain RECIPE --data VIDEOS --out RUN --run.watch WATCHED --run.watch-every 100
        --run.checkpoint-every 100 --run.keep 1000
    layerlock analyze depth RUN... --steps all --data OTHERS --out DEPTH
    python benchmarks/watch.py DEPTH RUN...

The probe is that of DEPTH/depth.json, of other videos than those that were watched, at the moments that both have. Each
figure is compared with it in three ways: over moments, which is what a person looks at who waits for a run (mean over
depths); over depths, which says where to read (mean over moments); and with the probe at the end, depth by depth, of
the first half of the run alone, which is a forecast.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

FIGURES = ("rankme", "cka", "probe")
PROBES = ("linear probe", "probe over time")


def main() -> None:
    """Parses the options; a line for each run, probe and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("depth", type=Path, help="folder of an analysis with --steps")
    parser.add_argument("runs", nargs="+")
    given = parser.parse_args()
    found = json.loads((given.depth / "depth.json").read_text())
    print("run | probe | figure | moments | over moments | over depths | with the last probe")
    for run in given.runs:
        step_of = {one["name"]: one["step"] for one in found["encoders"] if one["run"] == run}
        looks = {look["step"]: look for look in map(json.loads, (Path(run) / "watch.jsonl").read_text().splitlines())}
        steps = sorted(looks.keys() & set(step_of.values()))
        for metric in PROBES:
            probe_of = {
                (step_of[one["encoder"]], one["depth"]): one["value"]
                for one in found["values"]
                if one["metric"] == metric and one["encoder"] in step_of
            }
            depths = sorted({depth for _, depth in probe_of})
            probe_sd = np.array([[probe_of[step, depth] for depth in depths] for step in steps], float)
            for figure in FIGURES:
                figure_sd = np.array([looks[step][figure] for step in steps], float)
                over_moments = mean(map(likeness, figure_sd.T, probe_sd.T))
                over_depths = mean(map(likeness, figure_sd, probe_sd))
                early = figure_sd[: (len(steps) + 1) // 2]
                with_last = mean(likeness(row, probe_sd[-1]) for row in early)
                told = " | ".join(f"{value:+.2f}" for value in (over_moments, over_depths, with_last))
                print(f"{run} | {metric} | {figure} | {len(steps)} | {told}")


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of what both have; NaN of fewer than three pairs, or where one is constant."""
    both = np.isfinite(a) & np.isfinite(b)
    defined = both.sum() > 2 and np.ptp(a[both]) and np.ptp(b[both])
    return float(spearmanr(a[both], b[both]).statistic) if defined else math.nan


def mean(values: Iterable[float]) -> float:
    """Of those that are numbers."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan


if __name__ == "__main__":
    main()
