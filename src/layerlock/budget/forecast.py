"""A whole run before it begins, beside one that stays in its first stage and beside the same freezing with pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerlock.budget.devices import Machine
from layerlock.budget.stages import StageBudget, Total, budget, foretold, total
from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.plan import Plan, timeline
from layerlock.learn.plans.locking import LATENT, Locking


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A run's stages and totals. `baseline` stays in the first stage; `pixels` freezes as the run does and predicts
    pixels throughout, in `pixel_stages`: None and empty where the run does that itself or freezes nothing.
    """

    config: Config
    plan: Plan | None
    """one that was given in place of the config's own"""
    machine: Machine
    stages: tuple[StageBudget, ...]
    total: Total
    baseline: Total
    pixels: Total | None
    pixel_stages: tuple[StageBudget, ...]
    measured: bool
    """seconds are of steps that were timed on this machine"""


def forecast(
    config: Config, plan: Plan | None = None, machine: Machine | None = None, *, seconds: Sequence[float] = ()
) -> Forecast:
    """What a run will take; `seconds` are those of a step in each stage, where they were measured.

    Raises ConfigError for a config that cannot be trained, or not on that machine.
    """
    machine = machine or Machine()
    checked = check(config, machine, plan)
    stages = budget(config, checked, machine)
    if seconds:
        stages = tuple(replace(stage, step_seconds=each) for stage, each in zip(stages, seconds, strict=True))
    own = total(config, stages, machine)
    first = (replace(stages[0], end=config.steps),)
    pixels = None if plan or seconds else _with_pixels(config, stages)
    pixel_stages = budget(pixels, machine=machine) if pixels else ()
    return Forecast(
        config=config,
        plan=plan,
        machine=machine,
        stages=stages,
        total=own,
        baseline=total(config, first, machine),
        pixels=total(pixels, pixel_stages, machine) if pixels else None,
        pixel_stages=pixel_stages,
        measured=bool(seconds),
    )


def check(config: Config, machine: Machine, plan: Plan | None = None) -> Plan:
    """The plan of a run. Raises ConfigError with every problem of the config or the machine."""
    found = config.check(plan)
    stages = [stage for _, stage in timeline(found, config.steps)]
    problems = machine.problems() or config.share_problems(machine.gpus, stages)
    if problems:
        raise ConfigError(problems)
    return found


def _with_pixels(config: Config, stages: Sequence[StageBudget]) -> Config | None:
    """The run with its freezing and without its latent targets."""
    plan = config.plan
    if not isinstance(plan, Locking) or plan.target == "pixels" or not foretold(stages) or len(stages) < 2:
        return None
    shared = {name: getattr(Locking, name) for name in LATENT}
    return replace(config, plan=replace(plan, target="pixels", **shared))


def with_clips(config: Config, clips: float) -> Config:
    """The same run on so many clips: its steps follow, and all schedules are fractions of them. ConfigError for fewer
    than a batch.
    """
    if not math.isfinite(clips) or clips < config.batch:
        raise ConfigError([f"clips: {clips:g} are not one batch of {config.batch}"])
    return replace(config, steps=round(clips / config.batch))
