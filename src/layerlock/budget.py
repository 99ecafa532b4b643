"""What a run costs, counted from shapes: FLOPs of every stage, hours on an H100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerlock.config import Config
from layerlock.learn.observed import UNKNOWN, observes
from layerlock.learn.plan import Plan, Stage, timeline
from layerlock.learn.step_cost import StepCost

H100_PEAK = {"bf16": 989e12, "fp32": 67e12}
"""FLOP/s of an H100 SXM, dense; in float32 without TF32, which is never switched on here"""
UTILISATION = 0.4
"""share of the peak that a well-fed run reaches: an assumption, not a measurement"""


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """A stage from step `begin` up to `end` (None: not foretold), and what one clip costs in a step of it."""

    begin: int
    end: int | None
    stage: Stage
    clip: StepCost
    batch: int

    def flops(self, steps: int) -> int:
        """Of the stage in a run of `steps` steps; to its end, where its own is not foretold."""
        return self.clip.total * self.batch * ((self.end or steps) - self.begin)


def budget(config: Config, plan: Plan | None = None) -> tuple[StageBudget, ...]:
    """The stages of a run by `plan`, without one by the config's own, and their cost; of a plan that decides by what it
    observes the first alone, whose end is not foretold.
    """
    plan = plan or config.build_plan()
    stages = timeline(plan, config.steps)
    ends: list[int | None] = [*(begin for begin, _ in stages[1:]), config.steps]
    if observes(plan):
        stages, ends = stages[:1], [None]
    return tuple(
        StageBudget(begin=begin, end=end, stage=stage, clip=config.cost(stage), batch=config.batch)
        for (begin, stage), end in zip(stages, ends, strict=True)
    )


def unknown_networks(stages: Sequence[StageBudget]) -> str:
    """The networks whose cost is in no figure here since they are not on this machine, in words; empty for none."""
    names = dict.fromkeys(name for each in stages for name in each.clip.unknown)
    return f"without {', '.join(names)}: its cost is unknown until it is on this machine" if names else ""


def foretold(stages: Sequence[StageBudget]) -> bool:
    """Whether these are all stages of a run."""
    return stages[-1].end is not None


def total_flops(config: Config, stages: Sequence[StageBudget]) -> int:
    """Of all stages; of a run that is not foretold those that it takes if it stays in its first stage."""
    return sum(each.flops(config.steps) for each in stages)


def cost_in_words(config: Config, stages: Sequence[StageBudget]) -> str:
    """FLOPs and hours of a run, and what is not known of them."""
    flops = total_flops(config, stages)
    first = "" if foretold(stages) else f"{UNKNOWN}; throughout in its first stage "
    return "; ".join(filter(None, [f"{first}{flops:.3g} FLOPs", in_words(config, flops), unknown_networks(stages)]))


def h100_precision(config: Config) -> str:
    """What a run computes in on an H100, which multiplies bfloat16."""
    return "bf16" if config.run.precision == "auto" else config.run.precision


def h100_hours(config: Config, flops: float) -> float:
    """Hours of one H100 at 40 % of the peak of the run's precision; decoding and evaluation are not counted."""
    return flops / (UTILISATION * H100_PEAK[h100_precision(config)]) / 3600


def hours_text(hours: float) -> str:
    """Whole hours from 10 on, two digits below; nothing finer than a hundredth of an hour."""
    if hours < 0.01:
        return "under 0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def in_words(config: Config, flops: float) -> str:
    """The assumption behind `h100_hours`, with its result."""
    precision, hours = h100_precision(config), h100_hours(config, flops)
    peak = H100_PEAK[precision] / 1e12
    return f"{hours_text(hours)} H100 hours at {UTILISATION:.0%} of {peak:,.0f} TFLOP/s ({precision})"
