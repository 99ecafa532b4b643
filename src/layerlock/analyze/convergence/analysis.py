"""The analysis: trains, compares final losses, computes signals of the baselines, and how well each ranks the cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerlock.analyze.convergence import figures
from layerlock.analyze.convergence.cells import Cells, baseline, branch_of
from layerlock.analyze.convergence.moments import Moment, Probe, open_probe, read_moment
from layerlock.analyze.convergence.runs import Stopped, train_all
from layerlock.analyze.convergence.signals import SIGNALS, At
from layerlock.config import Config
from layerlock.encoders.run import checkpoints_of
from layerlock.errors import ConfigError, one_line
from layerlock.learn.plans import Progressive
from layerlock.learn.targets import PatchTarget
from layerlock.progress import Progress
from layerlock.train.device import pick_device, set_threads
from layerlock.train.folder import RunFolder

Value = tuple[float, str]
"""of a signal in a cell; nan, and why there is none"""


def analyze_convergence(config: Config, cells: Cells, *, quiet: bool = False) -> dict[str, Any]:
    """All figures, as `convergence.json` in `config.out` has them, or `{"signal": N}` where signal N stopped a run.

    Raises ConfigError and LayerlockError for what cannot be trained or compared.
    """
    check(config, cells)
    try:
        losses, first = train_all(config, cells, quiet)
    except Stopped as stopped:
        return {"signal": stopped.signal}
    branched, steps = cells.branched_seeds(), cells.steps(config)
    band = figures.band_of(losses, cells.seeds)
    found = figures.cells_of(losses, branched, cells.layers, steps, band)
    frozen = [cell for cell in found if cell["layer"]]
    by_seed = {}
    if frozen:
        probe = open_probe(baseline(config, cells, cells.seeds[0]), cells.probe_clips)
        by_seed = {seed: _signals(baseline(config, cells, seed), cells, frozen, probe, quiet) for seed in branched}
    deeper, pairs = figures.ordered(found)
    signals = [_signal(name, by_seed, frozen) for name in SIGNALS] if frozen else []
    made: dict[str, Any] = {
        **{"recipe": config.recipe, "data": config.data, "steps": config.steps, "batch": config.batch},
        **{"blocks": config.model.depth, "encoder_blocks": config.encoder_depth},
        **{"final_steps": cells.final_steps(config), "seeds": list(cells.seeds), "branched": list(branched)},
        "baselines": [
            {"seed": seed, "first loss": first[seed], "final loss": losses[seed, 0, 0]} for seed in cells.seeds
        ],
        "band": band,
        "cells": found,
        "deeper": deeper,
        "pairs": pairs,
        "signals": sorted(signals, key=lambda one: math.inf if one["spearman"] is None else -one["spearman"]),
    }
    figures.write(made, Path(config.out))
    return made | {"signal": None}


def check(config: Config, cells: Cells) -> None:
    """Raises ConfigError with all that is wrong, before anything is trained."""
    problems = cells.problems(config)
    if RunFolder(config.out).exists:
        problems.append(f"out: {config.out} is a run folder, whose report would be replaced; name another")
    if problems:
        raise ConfigError(problems)
    base = baseline(config, cells, cells.seeds[0])
    base.check()
    for step in cells.steps(config).values():
        for layer in cells.layers:
            branch_of(base, layer, step).check()


def _signals(
    base: Config, cells: Cells, frozen: Sequence[Mapping[str, Any]], probe: Probe, quiet: bool
) -> dict[str, list[Value]]:
    """Each signal of one baseline in all cells that freeze something."""
    assert isinstance(base.plan, Progressive)
    run, device = Path(base.out), pick_device(base.run.device)
    set_threads(base.run.threads, device)
    layers, steps = sorted({cell["layer"] for cell in frozen}), list(dict.fromkeys(cell["step"] for cell in frozen))
    target_bsp = probe.target(PatchTarget(base.plan.patches), run, base.steps)

    def read(step: int) -> Moment | None:
        there = step in checkpoints_of(run / "checkpoints")
        return read_moment(run, step, probe, layers, betas=base.optim.betas, device=device) if there else None

    end, values = read(base.steps), {name: list[Value]() for name in SIGNALS}
    assert end is not None
    with Progress("computing signals of the baseline", quiet) as progress:
        for done, step in enumerate(steps, 1):
            now, before = read(step), read(cells.before(base, step))
            at = At(config=base, now=now, before=before, end=end, target_bsp=target_bsp) if now else None
            for name, (compute, _) in SIGNALS.items():
                values[name] += [_value(compute, at, cell["layer"]) for cell in frozen if cell["step"] == step]
            progress(done, len(steps))
    return values


def _value(compute: Callable[[At, int], float], at: At | None, layer: int) -> Value:
    if at is None:
        return math.nan, "the baseline, which was trained for other times, has no checkpoint of the step"
    try:
        value = compute(at, layer)
    except (ValueError, ZeroDivisionError) as error:
        return math.nan, one_line(error)
    return (value, "") if math.isfinite(value) else (math.nan, "it is not finite")


def _signal(
    name: str, by_seed: Mapping[int, Mapping[str, Sequence[Value]]], frozen: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A signal in all cells, the mean over seeds, and how well it ranks them."""
    compute, known = SIGNALS[name]
    of_cells = list(zip(*(values[name] for values in by_seed.values()), strict=True))
    values = [figures.mean_of_known([value for value, _ in of_cell]) for of_cell in of_cells]
    spearman, why = figures.ranks(values, frozen)
    reasons = dict.fromkeys(reason for of_cell in of_cells for _, reason in of_cell if reason)
    about = " ".join((compute.__doc__ or "").split())
    why = "; ".join(filter(None, (why, *reasons)))
    return {"name": name, "about": about, "known": known, "spearman": spearman, "values": values, "why": why}
