"""The runs of an analysis: baselines first, then their branches; what is done is not done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from layerlock.analyze.convergence.cells import Cells, baseline, branch_of
from layerlock.config import Config, load_config
from layerlock.encoders.run import checkpoints_of, facts_of
from layerlock.errors import ConfigError, LayerlockError
from layerlock.train import checkpoint
from layerlock.train.branch import branch
from layerlock.train.device import pick_device, pick_precision, resolved, set_threads, threads_of
from layerlock.train.finished import is_finished
from layerlock.train.folder import RunFolder
from layerlock.train.loop import train

Losses = dict[tuple[int, int, int], float]
"""final losses by seed, layer and step; of the baselines by (seed, 0, 0)"""


class Stopped(Exception):
    """A run was stopped by a signal; everything is saved."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(f"stopped by signal {signal}")


def train_all(config: Config, cells: Cells, quiet: bool) -> tuple[Losses, dict[int, float]]:
    """Trains what is not trained yet; final losses of all runs, and by seed the baseline's loss at its beginning.

    Raises LayerlockError for a baseline whose loss did not fall, before any branch of any; Stopped.
    """
    window, steps = cells.final_steps(config), list(cells.steps(config).values())
    bases = {seed: baseline(config, cells, seed) for seed in cells.seeds}
    total = len(bases) + len(cells.branched_seeds()) * len(cells.layers) * len(steps)
    losses, first = Losses(), dict[int, float]()

    def say(text: str) -> None:
        if not quiet:
            print(f"run {len(losses) + 1} of {total}: {text}", flush=True)

    for seed, base in bases.items():
        say(f"seed {seed}, the baseline")
        lines = _trained(base, None, 0, quiet)
        losses[seed, 0, 0], first[seed] = (
            mean_loss(lines, config.steps - window, config.steps),
            mean_loss(lines, 0, window),
        )
        if not losses[seed, 0, 0] < first[seed]:
            raise LayerlockError(
                f"{base.out}: the loss of the baseline did not fall: {first[seed]:.4g} in its first {window:,} steps, "
                f"{losses[seed, 0, 0]:.4g} in its last; there is no convergence to measure. Train longer (--steps), "
                "with other settings (--optim.lr), or other data"
            )
    for seed in cells.branched_seeds():
        for step in steps:
            for layer in cells.layers:
                say(f"seed {seed}, {layer} block{'s' * (layer != 1)} frozen at step {step:,}")
                lines = _trained(branch_of(bases[seed], layer, step), RunFolder(bases[seed].out), step, quiet)
                losses[seed, layer, step] = mean_loss(lines, config.steps - window, config.steps)
    return losses, first


def _trained(config: Config, root: RunFolder | None, step: int, quiet: bool) -> list[dict[str, Any]]:
    """The log lines of a run that is done, or is done now: a branch goes on from the latest checkpoint of `root` that
    is not after `step`; without any it begins anew, and comes to the same.
    """
    folder = RunFolder(config.out)
    finished = is_finished(config)
    if folder.exists:
        _refuse_other_rounding(folder, config)
    elif root is not None and (there := [each for each in checkpoints_of(root.checkpoints) if each <= step]):
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        branch(root, there[-1], config)
    if not finished:
        signal = train(config, resume=folder.exists, quiet=quiet).signal
        if signal is not None:
            raise Stopped(signal)
    return list(folder.lines())


def _refuse_other_rounding(folder: RunFolder, config: Config) -> None:
    """Raises ConfigError where a run was carried out in another way than the others would be now, whatever `auto` is,
    so that they would differ in more than what is frozen.
    """
    device = pick_device(config.run.device)
    set_threads(config.run.threads, device)
    now = resolved(device, pick_precision(config.run, device)) | {"threads": threads_of(device)}
    last = checkpoint.latest(folder.checkpoints)
    before = now if last is None else {name: facts_of(last).get(name) for name in now}
    before = before | {"log_every": load_config(folder.config).run.log_every}
    changed = [
        f"run.{name}: {folder.path} was trained with {before[name]!r}, now {value!r}; runs that are compared differ "
        "in what is frozen alone: set it as it was, or name another --out"
        for name, value in (now | {"log_every": config.run.log_every}).items()
        if before[name] != value
    ]
    if changed:
        raise ConfigError(changed)


def mean_loss(lines: Sequence[Mapping[str, Any]], begin: int, end: int) -> float:
    """The mean loss of the updates `begin` + 1 .. `end`, from the log lines that are of these alone; each line counts
    as often as it has updates. Raises LayerlockError where there is none.
    """
    spans = [
        (after["step"] - before["step"], after["loss"])
        for before, after in pairwise([{"step": 0}, *lines])
        if begin <= before["step"] and after["step"] <= end
    ]
    if not spans:
        raise LayerlockError(f"no log line is of the steps {begin:,} to {end:,}; log more often (--run.log-every)")
    return sum(count * float(loss) for count, loss in spans) / sum(count for count, _ in spans)
