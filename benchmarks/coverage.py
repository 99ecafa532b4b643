"""How often a 95 % interval misses the truth where the clips of a video, or of another group, are not independent.

python benchmarks/coverage.py --trials 1000

The lead of one readout over another is simulated, with a true value of zero and a correlation of 0.5 between the clips
of a group: normal, skewed, or differences of hits and misses, in groups of one size or of uneven (geometric) sizes.
Four intervals: percentile bootstrap over clips, percentile bootstrap over groups, `layerlock.evaluation.intervals`
(below its least number of groups: of the same kind), and Student's t over groups. `better` is the share of trials that
`proves` takes for a lead. The second table has several readout seeds.
"""

from __future__ import annotations

import argparse
from unittest.mock import patch

import numpy as np
import torch
from scipy import stats

from layerlock.evaluation import intervals
from layerlock.evaluation.intervals import FEWEST, bootstrap, proves

SIZES = ((2, 40), (3, 20), (5, 20), (8, 10), (10, 10), (20, 10), (50, 4))
CORRELATION = 0.5


def main() -> None:
    """Prints a line for each number of groups and kind of lead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000)
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    print(f"shares of {trials} trials that miss the truth; verdicts are given from {FEWEST} groups on")
    print(f"{'lead':8}{'sizes':8}{'groups x clips':>15}{'clips':>8}{'groups':>8}{'ours':>8}{'t':>8}{'better':>8}")
    for kind in ("normal", "skewed", "hits"):
        for uneven in (False, True):
            for groups, clips in SIZES:
                shares = one_seed(rng, kind, uneven, groups, clips, trials)
                told = "".join(f"{share:8.3f}" for share in shares)
                print(f"{kind:8}{'uneven' if uneven else 'even':8}{f'{groups} x {clips}':>15}{told}", flush=True)
    print("\nseeds whose mean differs with a deviation of 0.2, 50 groups of 4 clips: share that miss the truth")
    for seeds in (2, 3, 5, 10):
        print(f"{seeds:3} seeds {several_seeds(rng, seeds, trials):8.3f}", flush=True)


def one_seed(
    rng: np.random.Generator, kind: str, uneven: bool, groups: int, clips: int, trials: int
) -> tuple[float, ...]:
    """Shares of trials: four intervals that miss zero, and verdicts for a lead."""
    found = np.zeros(5)
    for _ in range(trials):
        lead_v, group_v = draw(rng, kind, uneven, groups, clips)
        ours = bootstrap(torch.from_numpy(lead_v), torch.from_numpy(group_v))
        with patch.object(intervals, "SHOWN_FROM", 2):
            shown = bootstrap(torch.from_numpy(lead_v), torch.from_numpy(group_v))
        by_clip = plain(rng, lead_v, np.ones(len(lead_v)))
        sums, sizes = np.bincount(group_v, lead_v), np.bincount(group_v)
        spread = ((sums - lead_v.mean() * sizes) ** 2).sum() * groups / (groups - 1)
        half = stats.t.ppf(0.975, groups - 1) * spread**0.5 / len(lead_v)
        both = (by_clip, plain(rng, sums, sizes), (shown.low, shown.high), (lead_v.mean() - half, lead_v.mean() + half))
        found += [*(not low <= 0 <= high for low, high in both), proves(ours, groups)]
    return tuple(found / trials)


def draw(rng: np.random.Generator, kind: str, uneven: bool, groups: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """The lead of every clip and the number of its group."""
    sizes = rng.geometric(1 / clips, groups) if uneven else np.full(groups, clips)
    group_v = np.repeat(np.arange(groups), sizes)

    def values() -> np.ndarray:
        of_group = rng.exponential(size=groups) - 1 if kind == "skewed" else rng.normal(size=groups)
        return CORRELATION**0.5 * of_group[group_v] + (1 - CORRELATION) ** 0.5 * rng.normal(size=len(group_v))

    return (1.0 * (values() > 0.5) - (values() > 0.5) if kind == "hits" else values()), group_v


def plain(rng: np.random.Generator, sums: np.ndarray, sizes: np.ndarray, draws: int = 500) -> tuple[float, float]:
    """The percentile bootstrap of a mean: what was drawn, with replacement."""
    rows = rng.integers(0, len(sums), (draws, len(sums)))
    low, high = np.quantile(sums[rows].sum(1) / sizes[rows].sum(1), [0.025, 0.975])
    return low, high


def several_seeds(rng: np.random.Generator, seeds: int, trials: int) -> float:
    """The share of trials whose interval over groups and seeds misses zero."""
    missed = 0
    for _ in range(trials):
        lead_v, group_v = draw(rng, "normal", False, 50, 4)
        lead_sv = lead_v + rng.normal(scale=0.2, size=(seeds, 1)) + rng.normal(scale=0.2, size=(seeds, len(lead_v)))
        found = bootstrap(torch.from_numpy(lead_sv), torch.from_numpy(group_v))
        missed += not found.low <= 0 <= found.high
    return missed / trials


if __name__ == "__main__":
    main()
