"""Prints what a config would do, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from layerlock.budget import StageBudget, budget, cost_in_words, foretold, total_flops, unknown_networks
from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.learner import Learner
from layerlock.learn.masking import FutureMasking, Maskings, RandomMasking, TubeMasking
from layerlock.learn.observed import UNKNOWN
from layerlock.learn.plan import Plan, Stage
from layerlock.model.cost import backbone_parameters
from layerlock.settings import to_dict
from layerlock.train.optimizer import optimizer_problems

COLUMNS = ("steps", "frozen", "targets", "trained", "GFLOPs a clip", "x stage 1")
PARTS = ("encoder", "decoder", "heads", "target")
KEEPS, PREDICTS = (0.25, 0.10), (1.0, 0.25)
"""shares of other maskings whose cost is shown beside the config's own"""


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
    if others := other_maskings(config, stages[0].stage):
        console.print(_maskings(config, stages[0].stage, others))
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
            *(_part(getattr(cost, part), cost.total) for part in PARTS),
        )
    if not foretold(stages):
        table.add_row("?", "?", UNKNOWN)
    return table


def _part(flops: int, total: int) -> str:
    """GFLOPs of a part, three digits of them, and its share."""
    return f"{flops / 1e9:#.3g} ({flops / total:.0%})" if flops else "0"


def other_maskings(config: Config, stage: Stage) -> list[Maskings]:
    """Maskings of the config's kind with other shares, without those that this grid has no tokens for; other shares
    predicted where a loss of `stage` is at masked positions. None for kinds without such shares.
    """
    own = config.masking
    if not isinstance(own, RandomMasking | TubeMasking | FutureMasking):
        return []
    if isinstance(own, RandomMasking):
        own = replace(own, keep_to=None, group=RandomMasking.group)
    shares = PREDICTS if any(tap.masked for tap in stage.taps) else (own.predict,)
    made = [replace(own, keep=keep, predict=share) for keep in KEEPS for share in shares]  # type: ignore[arg-type]
    return [each for each in made if each != config.masking and not each.problems(config.grid)]


def _maskings(config: Config, stage: Stage, others: Sequence[Maskings]) -> Table:
    """What a clip costs in `stage` with the config's masking, and with others."""
    table = Table(title="GFLOPs a clip in the first stage, with this masking and with others of its kind")
    for name in ("keep", "predict", "seen", "predicted", "encoder", "decoder", "heads", "total", "x this"):
        table.add_column(name, justify="right")
    own = config.cost(stage).total
    for masking in (config.masking, *others):
        cost, counts = replace(config, masking=masking).cost(stage), masking.counts(config.grid)[0]
        masked = any(tap.masked for tap in stage.taps)
        table.add_row(
            _keep(masking),
            f"{getattr(masking, 'predict', None)}" if masked else "-",
            f"{counts.context:.4g}",
            f"{counts.predicted if masked else config.tokens:.4g}",
            *(f"{flops / 1e9:#.3g}" for flops in (cost.encoder, cost.decoder, cost.heads, cost.total)),
            f"{cost.total / own:.2f}",
        )
    return table


def _keep(masking: Maskings) -> str:
    keep, keep_to = getattr(masking, "keep", None), getattr(masking, "keep_to", None)
    return f"{keep} to {keep_to}" if keep_to else f"{keep}"
