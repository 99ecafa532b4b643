"""What a config would do, told without doing any of it."""

from __future__ import annotations

import json

import torch
from rich.console import Console
from rich.table import Table

from layerlock.config import Config, to_dict
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Plan, Stage, timeline
from layerlock.model.cost import backbone_parameters


def live_parameters(config: Config, stage: Stage) -> int:
    """Parameters that a stage trains, its decoders and heads included."""
    with torch.device("meta"):
        learner = Learner(config.model, config.grid, config.masking, config.decoder)
        learner.enter(stage)
    return sum(parameter.numel() for parameter in learner.live().values())


def show(config: Config, plan: Plan | None = None) -> None:
    """Prints the resolved config and, for each stage, its steps, parameters and FLOPs.

    Raises ConfigError as training would.
    """
    plan = config.check(plan)
    console = Console(highlight=False, soft_wrap=True, width=140)
    console.print(json.dumps(to_dict(config), indent=2), markup=False)
    stages = timeline(plan, config.steps)
    ends = [begin for begin, _ in stages[1:]] + [config.steps]
    first = config.cost(stages[0][1]).total
    table = Table(
        title=f"{config.recipe}: {backbone_parameters(config.model, config.tokens) / 1e6:,.1f} M parameters, "
        f"{config.tokens} tokens, "
        f"{config.context_tokens} of them context"
    )
    for name in (
        "steps",
        "frozen",
        "targets",
        "trained",
        "GFLOPs a clip",
        "of the first",
        "encoder",
        "decoder",
        "heads",
        "target",
    ):
        table.add_column(name, justify="left" if name in ("steps", "targets") else "right")
    total = 0
    for (begin, stage), end in zip(stages, ends, strict=True):
        cost = config.cost(stage)
        total += cost.total * config.batch * (end - begin)
        table.add_row(
            f"{begin:,}-{end:,}",
            str(stage.frozen),
            stage.targets,
            f"{live_parameters(config, stage) / 1e6:,.1f} M",
            f"{cost.total / 1e9:,.2f}",
            f"{cost.total / first:.2f}",
            *(f"{part / cost.total:.0%}" for part in (cost.encoder, cost.decoder, cost.heads, cost.target)),
        )
    console.print(table)
    console.print(
        f"{total:.3g} FLOPs in all, {total / (first * config.batch * config.steps):.3f} of the first stage throughout"
    )
