"""Prints what a config would do, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from layerlock.budget import StageBudget, budget, cost_in_words, foretold, total_flops, unknown_networks
from layerlock.config import Config, to_dict
from layerlock.errors import ConfigError
from layerlock.learn.learner import Learner
from layerlock.learn.observed import UNKNOWN
from layerlock.learn.plan import Plan, Stage
from layerlock.model.cost import backbone_parameters
from layerlock.train.optimizer import optimizer_problems

COLUMNS = ("steps", "frozen", "targets", "trained", "GFLOPs a clip", "x stage 1")
PARTS = ("encoder", "decoder", "heads", "target")


def live_parameters(config: Config, stages: Sequence[Stage]) -> list[int]:
    """Parameters that each stage trains, its decoders and heads included, when a run goes through them in order.

    Raises LayerlockError where a target is of a network that is not on this machine.
    """
    with torch.device("meta"):
        learner = Learner(config.model, config.grid, config.masking, config.decoder, stages[0])
        found = []
        for stage in stages:
            learner.enter(stage)
            found.append(sum(parameter.numel() for parameter in learner.live().values()))
    return found


def show(config: Config, plan: Plan | None = None) -> None:
    """Prints the resolved config and, for each stage, its steps, parameters and FLOPs; then those of the whole run.

    Raises ConfigError as training would.
    """
    stages = budget(config, config.check(plan))
    if found := optimizer_problems(config.optim):
        raise ConfigError(found)
    console = Console(highlight=False, soft_wrap=True, width=140)
    console.print(json.dumps(to_dict(config), indent=2), markup=False)
    console.print(_table(config, stages))
    console.print(cost_in_words(config, stages), markup=False)
    if foretold(stages):
        total, unfrozen = total_flops(config, stages), stages[0].clip.total * config.batch * config.steps
        console.print(f"{total / unfrozen:.3f} times the FLOPs of a run that stays in its first stage")


def _table(config: Config, stages: Sequence[StageBudget]) -> Table:
    table = Table(
        title=f"{config.recipe}: {backbone_parameters(config.model, config.tokens) / 1e6:,.1f} M parameters, "
        f"{config.tokens} tokens, "
        f"{config.context_tokens} of them context"
    )
    for name in (*COLUMNS, *PARTS):
        table.add_column(name, justify="left" if name in ("steps", "targets") else "right")
    first = stages[0].clip.total
    known = not unknown_networks(stages)
    live = live_parameters(config, [each.stage for each in stages]) if known else [None] * len(stages)
    for each, parameters in zip(stages, live, strict=True):
        cost = each.clip
        table.add_row(
            f"{each.begin:,}-{'?' if each.end is None else f'{each.end:,}'}",
            str(each.stage.frozen),
            each.stage.targets,
            "unknown" if parameters is None else f"{parameters / 1e6:,.1f} M",
            f"{cost.total / 1e9:,.2f}",
            f"{cost.total / first:.2f}",
            *(f"{getattr(cost, part) / cost.total:.0%}" for part in PARTS),
        )
    if not foretold(stages):
        table.add_row("?", "?", UNKNOWN)
    return table
