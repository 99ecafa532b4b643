"""Prints what a config would do, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from layerlock.budget.forecast import forecast
from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.masking import FutureMasking, Maskings, RandomMasking, TubeMasking
from layerlock.learn.plan import Plan, Stage
from layerlock.settings import to_dict
from layerlock.show import show_plan
from layerlock.train.optimizer import optimizer_problems

KEEPS, PREDICTS = (0.25, 0.10), (1.0, 0.25)
"""shares of other maskings whose cost is shown beside the config's own"""


def show(config: Config, plan: Plan | None = None) -> None:
    """Prints the resolved config, what `layerlock plan` prints of it on an H100, and what other maskings would cost.

    Raises ConfigError as training would.
    """
    found = forecast(config, plan)
    if problems := optimizer_problems(config.optim):
        raise ConfigError(problems)
    console = Console(highlight=False, soft_wrap=True, width=140)
    console.print(json.dumps(to_dict(config), indent=2), markup=False)
    show_plan(found)
    if others := other_maskings(config, found.stages[0].stage):
        console.print(_maskings(config, found.stages[0].stage, others))


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
