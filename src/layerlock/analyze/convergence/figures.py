"""Final losses and signals as figures: deviations, the band of seeds, rank correlations, and the files with them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy import stats

from layerlock.analyze.convergence.runs import Losses
from layerlock.analyze.table import finite
from layerlock.errors import LayerlockError
from layerlock.files import write_whole

BAND_SEEDS = 3
"""of fewer baselines there is no noise band"""
RANKED = 3
"""of fewer cells there is no rank correlation"""
COLUMNS = ("layer", "time", "step", "seed", "figure", "value", "low", "high", "why")


def band_of(losses: Losses, seeds: Sequence[int]) -> dict[str, Any] | None:
    """The noise of the final loss: the range over baselines of their deviation from their mean, in per cent; None of
    too few seeds.
    """
    finals = [losses[seed, 0, 0] for seed in seeds]
    if len(finals) < BAND_SEEDS:
        return None
    off = [_deviation(loss, fmean(finals)) for loss in finals]
    return {"low": min(off), "high": max(off), "seeds": len(finals)}


def cells_of(
    losses: Losses,
    seeds: Sequence[int],
    layers: Sequence[int],
    steps: Mapping[float, int],
    band: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Each cell: deviations of its branches from the baselines of their own seeds, in per cent, and their mean and
    range; `within`, whether the mean is not above the noise band (None without one).
    """
    found = []
    for time, step in steps.items():
        for layer in layers:
            final = [losses[seed, layer, step] for seed in seeds]
            off = [_deviation(losses[seed, layer, step], losses[seed, 0, 0]) for seed in seeds]
            found.append(
                {
                    **{"layer": layer, "time": time, "step": step, "loss": fmean(final)},
                    **{"deviation": fmean(off), "low": min(off), "high": max(off), "deviations": off},
                    "within": None if band is None else fmean(off) <= band["high"],
                }
            )
    return found


def _deviation(loss: float, base: float) -> float:
    return 100 * (loss / base - 1)


def ordered(cells: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Of pairs of cells of one step: in how many the deeper one deviates more, as the paper finds; and how many."""
    pairs = [
        sorted(pair, key=lambda cell: int(cell["layer"]))
        for pair in combinations([cell for cell in cells if cell["layer"]], 2)
        if pair[0]["step"] == pair[1]["step"]
    ]
    return sum(deep["deviation"] > shallow["deviation"] for shallow, deep in pairs), len(pairs)


def ranks(values: Sequence[float | None], cells: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Spearman's rank correlation of a signal with the deviations of the same cells; None and why where there is none,
    or why it is not of all cells.
    """
    pairs = [(value, cell["deviation"]) for value, cell in zip(values, cells, strict=True) if value is not None]
    if len(pairs) < RANKED:
        return None, f"{len(pairs)} cells are too few"
    if any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None, "it is the same in all cells, or the deviation is"
    found = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    return finite(found), "" if len(pairs) == len(values) else f"of {len(pairs)} of {len(values)} cells"


def mean_of_known(values: Sequence[float]) -> float | None:
    """The mean of values that are numbers; None of none."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else None


def write(found: Mapping[str, Any], folder: Path) -> None:
    """`convergence.json` and `convergence.csv`, a line for each figure. LayerlockError where they cannot be written."""
    try:
        text = json.dumps(found, allow_nan=False, indent=1)
        write_whole(folder / "convergence.json", lambda path: path.write_text(text))
        write_whole(folder / "convergence.csv", lambda path: _write_table(found, path))
    except OSError as error:
        raise LayerlockError(f"{folder}: cannot be written ({error.strerror})") from None


def _write_table(found: Mapping[str, Any], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        table.writerows(_lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for base in found["baselines"]:
        for figure in ("first loss", "final loss"):
            yield {"seed": base["seed"], "figure": figure, "value": base[figure]}
    if found["band"] is not None:
        yield {"figure": "noise band, %", "low": found["band"]["low"], "high": found["band"]["high"]}
    for cell in found["cells"]:
        place = {name: cell[name] for name in ("layer", "time", "step")}
        yield place | {"figure": "final loss", "value": cell["loss"]}
        yield (
            place | {"figure": "deviation, %"} | {"value": cell["deviation"], "low": cell["low"], "high": cell["high"]}
        )
        for seed, value in zip(found["branched"], cell["deviations"], strict=True):
            yield place | {"seed": seed, "figure": "deviation, %", "value": value}
    frozen = [cell for cell in found["cells"] if cell["layer"]]
    for signal in found["signals"]:
        yield {"figure": f"Spearman, {signal['name']}", "value": signal["spearman"], "why": signal["why"]}
        for cell, value in zip(frozen, signal["values"], strict=True):
            place = {name: cell[name] for name in ("layer", "time", "step")}
            yield place | {"figure": signal["name"], "value": value, "why": "" if value is not None else signal["why"]}
