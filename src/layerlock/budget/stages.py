"""FLOPs, bytes and seconds of every stage of a run, and what a whole run takes of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from layerlock.budget.devices import Machine, Precision
from layerlock.config import Config
from layerlock.learn.observed import observes
from layerlock.learn.plan import Plan, Stage, timeline
from layerlock.learn.step_cost import StepCost
from layerlock.model.cost import FLOAT, Numerics

LEFT = 0.9
"""the share of a device's memory that tensors can have"""

MICRO_TRAFFIC = 20
"""bytes that a micro-batch moves for each live parameter: in bfloat16 the cast (6), a read forward and one backward
(4), its gradient added to those before (10)"""


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """A stage from step `begin` up to `end` (None: not foretold); what one clip costs in a step of it, what one device
    holds, and how long a step takes.

    Bytes and seconds are nan where a target is of a network that is not on this machine.
    """

    begin: int
    end: int | None
    stage: Stage
    clip: StepCost
    batch: int
    """clips of all devices in a step"""
    live: float
    """parameters that learn"""
    weights: float
    """bytes of weights: frozen ones in the compute type, live ones in float32"""
    gradients: float
    """bytes of gradients, float32"""
    moments: float
    """bytes of the optimizer's moments, float32"""
    kept: float
    """bytes kept for backward of the clips that are computed at once, copies of weights in the compute type included"""
    peak: float
    """bytes at the fullest moment"""
    step_seconds: float

    def steps(self, run: int) -> int:
        """Steps of the stage in a run of so many; to its end, where its own is not foretold."""
        return (self.end or run) - self.begin

    def flops(self, run: int) -> int:
        """Of the stage in a run of so many steps, recomputation not counted."""
        return self.clip.total * self.batch * self.steps(run)


def budget(config: Config, plan: Plan | None = None, machine: Machine | None = None) -> tuple[StageBudget, ...]:
    """The stages of a run by `plan`, without one by the config's own, and their cost on `machine`, without one an H100;
    of a plan that decides by what it observes the first alone, whose end is not foretold.
    """
    plan, machine = plan or config.build_plan(), machine or Machine()
    divided = divides(config, plan, machine)
    return tuple(stage_budget(config, *span, machine, divided) for span in _spans(config, plan))


def divides(config: Config, plan: Plan, machine: Machine) -> bool:
    """Whether devices divide the optimizer's moments among them: as `run.shard` says; auto: where the fullest stage
    takes more than `LEFT` of the memory of each otherwise.
    """
    if machine.gpus == 1 or config.run.shard != "auto":
        return machine.gpus > 1 and config.run.shard == "yes"
    peak = max(stage_budget(config, *span, machine).peak for span in _spans(config, plan))
    return peak > LEFT * machine.device.memory


def _spans(config: Config, plan: Plan) -> list[tuple[Stage, int, int | None]]:
    """Each stage that is foretold with its first step and that after its last."""
    stages = timeline(plan, config.steps)
    if observes(plan):
        return [(stages[0][1], stages[0][0], None)]
    ends = [*(begin for begin, _ in stages[1:]), config.steps]
    return [(stage, begin, end) for (begin, stage), end in zip(stages, ends, strict=True)]


def stage_budget(
    config: Config, stage: Stage, begin: int, end: int | None, machine: Machine, divided: bool = False
) -> StageBudget:
    """A stage's figures: a pure function of these. `divided`: each device has its share of the moments alone.

    The peak is that of weights, moments, the micro-batch as uint8, what is kept for backward and what operators need.
    Gradients come as that goes, so only the larger of the two counts, but where those of earlier backwards of the same
    step are there already. What an allocator reserves and does not give out is not counted.
    """
    clip, numerics = config.cost(stage), numerics_of(config, machine)
    memory = config.memory(stage, numerics)
    micro, at_once = micro_batch(config, machine), clips_at_once(config, machine)
    gradients = FLOAT * memory.live
    moments = FLOAT * _remembered(config) * memory.live / (machine.gpus if divided else 1)
    kept = memory.kept.clip * at_once + memory.kept.fixed
    earlier = 1.0 if config.optim.accumulate > 1 or at_once < micro else memory.earlier
    growing = max(kept + earlier * gradients, gradients)
    flops = (clip.total + (clip.recomputed if config.run.recompute else 0)) * config.batch / machine.gpus
    peak_rate = machine.utilisation.share * machine.device.peak[precision(config)]
    unknown = math.nan if clip.unknown else 1.0
    return StageBudget(
        begin=begin,
        end=end,
        stage=stage,
        clip=clip,
        batch=config.batch,
        live=memory.live * unknown,
        weights=memory.weights * unknown,
        gradients=gradients * unknown,
        moments=moments * unknown,
        kept=kept * unknown,
        peak=(memory.weights + moments + memory.inputs * micro + memory.working * at_once + growing) * unknown,
        step_seconds=(flops / peak_rate + _traffic(config, memory.live, memory.weights) / machine.device.bandwidth)
        * unknown,
    )


def _traffic(config: Config, live: int, weights: int) -> float:
    """Bytes that a step moves whatever its clips are: frozen weights are read and live ones cast and read in every
    micro-batch; an update reads weights, gradients and moments, and writes all but gradients.
    """
    numbers = 3 + 2 * _remembered(config)
    return config.optim.accumulate * (MICRO_TRAFFIC * live + weights - FLOAT * live) + numbers * FLOAT * live


def _remembered(config: Config) -> int:
    """Numbers that the optimizer remembers of each parameter: two moments, or the momentum of sgd where it has one."""
    return 2 if config.optim.name == "adamw" else int(config.optim.betas[0] > 0)


def precision(config: Config) -> Precision:
    """What a run computes in on devices that multiply bfloat16, as all do that are planned for."""
    return "fp32" if config.run.precision == "fp32" else "bf16"


def numerics_of(config: Config, machine: Machine) -> Numerics:
    """What bytes depend on besides shapes."""
    return Numerics(compute=2 if precision(config) == "bf16" else FLOAT, cpu=machine.device.cpu)


def micro_batch(config: Config, machine: Machine) -> int:
    """Clips of a micro-batch on one device."""
    return config.batch // (config.optim.accumulate * machine.gpus)


def clips_at_once(config: Config, machine: Machine) -> int:
    """Clips whose activations are kept together: a micro-batch, or the largest part of it whose masks have one size."""
    parts = config.masking.parts(torch.arange(micro_batch(config, machine)))
    return max(part.stop - part.start for part in parts)


def foretold(stages: Sequence[StageBudget]) -> bool:
    """Whether these are all stages of a run."""
    return stages[-1].end is not None


def unknown_networks(stages: Sequence[StageBudget]) -> tuple[str, ...]:
    """The networks whose cost is in no figure here since they are not on this machine."""
    return tuple(dict.fromkeys(name for each in stages for name in each.clip.unknown))


@dataclass(frozen=True, kw_only=True)
class Total:
    """What a run takes on all its devices; nan for what is not known. Decoding and evaluation are not counted."""

    flops: int
    peak: float
    """bytes on one device, in the fullest stage"""
    last_peak: float
    """bytes on one device, in the last stage"""
    hours: float
    device_hours: float
    kwh: float
    """of the devices at their board power"""
    money: float


def total(config: Config, stages: Sequence[StageBudget], machine: Machine) -> Total:
    """Of all stages; of a run that is not foretold, what it takes if it stays in its first stage."""
    hours = sum(each.step_seconds * each.steps(config.steps) for each in stages) / 3600
    device_hours = hours * machine.gpus
    return Total(
        flops=sum(each.flops(config.steps) for each in stages),
        peak=max(each.peak for each in stages) if not unknown_networks(stages) else math.nan,
        last_peak=stages[-1].peak,
        hours=hours,
        device_hours=device_hours,
        kwh=device_hours * machine.device.watts / 1000,
        money=device_hours * machine.price,
    )
