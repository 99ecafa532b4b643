"""Which prefixes are frozen when: the cells of Figure 1, and the runs that fill them, as configs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.plans import Locking, Progressive
from layerlock.settings import type_problems

FEWEST_CLIPS = 8
WINDOW = 0.02
"""of the run: so long before a cell's step begins the stretch over which its signals are changes"""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What is frozen when, how often, and what is compared."""

    layers: tuple[int, ...] = ()
    """numbers of blocks that branches freeze, from the first on; 0: none, a control that deviates by exactly 0"""
    times: tuple[float, ...] = ()
    """when branches freeze, as fractions of the run, rounded to log lines"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of weights, clips and masks: a baseline is trained with each"""
    branched: int | None = None
    """of so many of the seeds, the first ones, branches are trained; None: of all"""
    final: float = 0.07
    """last fraction of the run, whose mean loss is the final loss (the paper: 1,000 of 14,000 steps)"""
    probe_clips: int = 64
    """clips on which features of the baseline are compared"""

    def problems(self, config: Config) -> list[str]:
        """What is wrong with the cells of a run of `config`, a line each."""
        found = list(type_problems(self))
        if found:
            return found
        found += [f"{name}: empty" for name in ("layers", "times", "seeds") if not getattr(self, name)]
        found += [
            f"{name}: one is named twice"
            for name in ("layers", "times", "seeds")
            if len(set(getattr(self, name))) < len(getattr(self, name))
        ]
        found += [
            f"layers: {layer} of {config.encoder_depth} encoder blocks (of {config.model.depth} blocks "
            f"{config.model.depth - config.encoder_depth} decode)"
            for layer in self.layers
            if not 0 <= layer <= config.encoder_depth
        ]
        if not 0 < self.final <= 0.5:
            found.append(f"final: {self.final} must be above 0 and at most 0.5, a fraction of the run")
        if self.branched is not None and not 1 <= self.branched <= len(self.seeds):
            found.append(f"branched: {self.branched} of {len(self.seeds)} seeds")
        if self.probe_clips < FEWEST_CLIPS:
            found.append(f"probe_clips: {self.probe_clips} are too few; {FEWEST_CLIPS} are needed")
        if config.steps >= 1 and config.run.log_every >= 1 and 0 < self.final <= 0.5:
            found += self._time_problems(config)
        return found

    def _time_problems(self, config: Config) -> Iterator[str]:
        steps, last = self.steps(config), config.steps - self.final_steps(config)
        lines = f"there is a log line every {config.run.log_every:,} steps (run.log_every)"
        for time, step in steps.items():
            if not 0 < time < 1:
                yield f"times: {time} must be above 0 and below 1, a fraction of the run"
            elif step < 1:
                yield f"times: {time} is before the first log line; {lines}"
            elif step > last:
                yield (
                    f"times: {time} is step {step:,} of {config.steps:,}; losses after step {max(last, 0):,} are the "
                    f"final loss that is compared; {lines}"
                )
        if len(set(steps.values())) < len(steps):
            yield f"times: two are the same log line; {lines}"

    def steps(self, config: Config) -> dict[float, int]:
        """The step of each time: that of a log line, since no line is of two stages."""
        every = config.run.log_every
        return {time: round(time * config.steps / every) * every for time in self.times}

    def final_steps(self, config: Config) -> int:
        """How many steps at the end have the final loss as their mean: whole log lines, a shorter last one too."""
        every = config.run.log_every
        wanted = max(1, round(self.final * config.steps / every)) * every
        return config.steps - (config.steps - wanted) // every * every

    def before(self, config: Config, step: int) -> int:
        """The step at which the changes that end in `step` begin; 0 or less where there is none."""
        every = config.run.log_every
        return step - max(1, round(WINDOW * config.steps / every)) * every

    def kept(self, config: Config) -> tuple[int, ...]:
        """The steps whose checkpoints a baseline keeps."""
        steps = self.steps(config).values()
        return tuple(sorted({*steps, *(before for step in steps if (before := self.before(config, step)) > 0)}))

    def branched_seeds(self) -> tuple[int, ...]:
        """The seeds whose baselines have branches."""
        return self.seeds[: self.branched]


def baseline(config: Config, cells: Cells, seed: int) -> Config:
    """The run that freezes nothing: the same patches predicted at the same positions; no warm-up follows a switch, so
    that freezing is all that a branch does. Raises ConfigError for a plan that does not predict patches.
    """
    plan = config.plan
    if not isinstance(plan, Locking):
        raise ConfigError([f"plan: {type(plan).__name__} does not train by patches alone; take a recipe like mae-nano"])
    alone = Progressive(frozen=plan.frozen, masked=plan.masked, patches=plan.patches, motion_weight=plan.motion_weight)
    return replace(
        config,
        seed=seed,
        out=str(Path(config.out) / f"seed-{seed}" / "baseline"),
        plan=alone,
        optim=replace(config.optim, mini_warmup=0.0),
        run=replace(config.run, keep_at=cells.kept(config)),
    )


def branch_of(base: Config, layer: int, step: int) -> Config:
    """The run that is the baseline up to `step` and freezes so many blocks then."""
    assert isinstance(base.plan, Progressive)
    plan = replace(base.plan, freezes=((step / base.steps, layer),)) if layer else base.plan
    out = Path(base.out).with_name(f"freeze-{layer}-at-{step}")
    return replace(base, plan=plan, out=str(out), run=replace(base.run, keep=1, keep_at=()))
