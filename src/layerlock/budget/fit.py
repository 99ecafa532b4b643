"""Settings of a run that fit into so much memory: micro-batches, recomputation, the share of patches predicted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from layerlock.budget.forecast import Forecast
from layerlock.budget.stages import StageBudget, Total, budget, total, unknown_networks
from layerlock.budget.words import bytes_text
from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.plans.locking import Locking

FRACTIONS = (0.5, 0.25, 0.1, 0.05)
"""shares of the patches that latent losses are tried on, where all of the run's own do not fit"""
UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings that fit: the config with them, and the options that set them."""

    config: Config
    options: str
    """as `layerlock pretrain` takes them; empty where the config fits as it is"""
    micro: int
    """clips of a micro-batch on one device"""
    total: Total
    limit: float
    """bytes"""


def fit(planned: Forecast, limit: float) -> tuple[Fit, ...]:
    """What of a run fits into `limit` bytes on one device, the best first: with and without recomputation the largest
    micro-batches, in the order of predicted time. The objective is changed, by a smaller share of the patches, only
    where nothing else fits; batches never are.

    Raises ConfigError where nothing fits, with what the smallest would need.
    """
    config, least = planned.config, None
    for objective in (config, *(() if planned.plan else _smaller(config))):
        found = []
        for recompute in dict.fromkeys((config.run.recompute, True)):
            run = replace(objective, run=replace(objective.run, recompute=recompute))
            fitted, fullest = _largest(planned, run, limit)
            found += [fitted] if fitted else []
            least = fullest if least is None or fullest.peak < least.peak else least
        if found:
            return tuple(sorted(found, key=lambda each: each.total.hours))
    assert least is not None
    state = least.weights + least.moments + least.gradients
    raise ConfigError(
        [
            f"fit: nothing fits into {bytes_text(limit)}: micro-batches of one clip with recomputation need"
            f" {bytes_text(least.peak)} at the fullest, of which weights, gradients and moments are"
            f" {bytes_text(state)}; take a smaller model or device memory of that size"
        ]
    )


def _smaller(config: Config) -> Iterator[Config]:
    """The config with smaller shares of the patches in latent losses, where it has such a share."""
    plan = config.plan
    if isinstance(plan, Locking) and plan.target == "frozen" and not plan.masked:
        for fraction in FRACTIONS:
            if fraction < plan.latent_fraction:
                yield replace(config, plan=replace(plan, latent_fraction=fraction))


def _largest(planned: Forecast, config: Config, limit: float) -> tuple[Fit | None, StageBudget]:
    """The largest micro-batches that fit, and the fullest stage of those that were tried last."""
    machine = replace(planned.machine, device=replace(planned.machine.device, memory=limit))
    each = config.batch // machine.gpus
    parts = [count for count in range(config.optim.accumulate, each + 1) if each % count == 0]
    for count in parts:
        made = replace(config, optim=replace(config.optim, accumulate=count))
        stages = budget(made, planned.plan, machine)
        if names := unknown_networks(stages):
            raise ConfigError([f"fit: the memory of {', '.join(names)} is unknown until it is on this machine"])
        fullest = max(stages, key=lambda stage: stage.peak)
        if fullest.peak <= limit:
            whole, options = total(made, stages, machine), _options(planned.config, made)
            return Fit(config=made, options=options, micro=each // count, total=whole, limit=limit), fullest
    return None, fullest


def _options(before: Config, after: Config) -> str:
    """What makes the one of the other on the command line."""
    found = []
    if after.optim.accumulate != before.optim.accumulate:
        found.append(f"--optim.accumulate {after.optim.accumulate}")
    if after.run.recompute != before.run.recompute:
        found.append("--run.recompute")
    if isinstance(after.plan, Locking) and after.plan != before.plan:
        found.append(f"--plan.latent-fraction {after.plan.latent_fraction}")
    return " ".join(found)


def bytes_of(text: str) -> float:
    """`24GB` (1e9 each) or `24GiB` (2**30) as bytes. ConfigError for anything else."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]i?B)\s*", text)
    try:
        size = float(found.group(1)) * UNITS[found.group(2)] if found else math.nan
    except (ValueError, KeyError):
        size = math.nan
    if not 0 < size < math.inf:
        raise ConfigError([f"fit: {text!r} is no size of memory; write 24GB or 80GiB"])
    return size
