"""What commands print: tables and lines of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerlock.budget import words as budget_words
from layerlock.budget.devices import Machine
from layerlock.budget.fit import Fit
from layerlock.budget.forecast import Forecast
from layerlock.budget.stages import foretold
from layerlock.budget.words import bytes_text, hours_text
from layerlock.data.index.listing import printable
from layerlock.data.pack import Packed
from layerlock.evaluation import words
from layerlock.evaluation.results import Evaluation
from layerlock.features.embeddings import Embeddings
from layerlock.learn.observed import UNKNOWN
from layerlock.model.cost import backbone_parameters
from layerlock.recipes import RECIPES

WIDEST = 240
"""columns that a table may take: broken cells could not be read"""


def path_name(path: Path) -> str:
    """A path with control characters and invalid bytes as escapes."""
    return printable(str(path))


def show_recipe(text: str) -> None:
    """Prints a recipe's lines of text."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def show_recipes(line_of: Mapping[str, str]) -> None:
    """Prints the names of recipes, each with its line."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(map(len, line_of))
    for name, text in line_of.items():
        console.print(f"[bold]{name:{width}}[/bold] {text}")


def show_facts(facts: Mapping[str, Any]) -> None:
    """Prints facts by name, one a line."""
    for name, value in facts.items():
        print(f"{name:12} {printable(str(value))}")


def show_embeddings(found: Embeddings, out: Path) -> None:
    """Prints how many vectors are in the file `out`, and each file that was skipped."""
    rows, *others, width = found.features.shape
    tokens = [] if found.position is None else [f"{others.pop()} tokens"]
    what = [
        f"{rows} videos" if found.video is None else f"{rows} clips of {len(found.files)} videos",
        *(f"{blocks} blocks" for blocks in others),
        *tokens,
        f"{width} features",
    ]
    print(
        f"{' x '.join(what)} in {path_name(out)}, "
        f"{'whitened' if found.whitening else 'not whitened'}; "
        f"{len(found.rejected)} files {'' if found.video is None else 'or clips '}skipped"
    )
    for path, reason in found.rejected:
        print(printable(f"skipped {path}: {reason}"))


def show_pack(made: Packed) -> None:
    """Prints what was packed, and each video that was left out."""
    shards = f"{made.shards:,} shard{'s' * (made.shards != 1)}"
    print(
        f"{made.videos:,} videos in {shards} of {made.bytes / 1e6:,.1f} MB in {path_name(made.out)}; "
        f"{len(made.left_out):,} left out"
    )
    for path, reason in made.left_out:
        print(printable(f"left out {path}: {reason}"))


def show_evaluation(found: Evaluation) -> None:
    """Prints the table of an evaluation, and what has to be said with it."""
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    better = "higher" if found.higher_is_better else "lower"
    tables = {
        f"{found.task}: {better} is better": words.table(found),
        f"{found.metric} of the test split by block": words.by_block(found),
        f"{found.metric} of the test split by training videos, solved readouts": words.by_shots(found),
    }
    for title, (head, rows) in tables.items():
        if rows:
            drawn = Table(*head, box=None, pad_edge=False, title_justify="left", title=title)
            for row in rows:
                drawn.add_row(*map(escape, row))
            console.print(drawn)
    for sentence in (*words.verdicts(found), *words.sentences(found)):
        console.print(printable(sentence), markup=False)
    console.print(f"results: {path_name(Path(found.out) / 'results.json')}", markup=False)
    if (Path(found.out) / "report.html").exists():
        console.print(f"report:  {path_name(Path(found.out) / 'report.html')}", markup=False)


def show_depths(found: Mapping[str, Any], out: Path) -> None:
    """Prints a table for each encoder, figures by depth, and where the figures are."""
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    value_of = {(each["encoder"], each["depth"], each["metric"]): each["value"] for each in found["values"]}
    for encoder in found["encoders"]:
        depths = encoder["depths"]
        drawn = Table(
            "depth", *map(str, depths), box=None, pad_edge=False, title_justify="left", title=escape(encoder["name"])
        )
        for metric in found["metrics"]:
            values = (value_of.get((encoder["name"], depth, metric["name"])) for depth in depths)
            drawn.add_row(metric["name"], *("-" if value is None else f"{value:.3g}" for value in values))
        console.print(drawn)
    print(f"{found['clips']} clips, {len(found['skipped'])} files skipped; figures: {path_name(out / 'depth.csv')}")
    if (out / "report.html").exists():
        print(f"report:  {path_name(out / 'report.html')}")


def show_convergence(found: Mapping[str, Any], out: Path) -> None:
    """Prints the deviations of all cells, what ranks them, and where the figures are."""
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    layers = list(dict.fromkeys(cell["layer"] for cell in found["cells"]))
    drawn = Table("deviation, %", *(f"{layer} block{'s' * (layer != 1)}" for layer in layers), box=None, pad_edge=False)
    for step in dict.fromkeys(cell["step"] for cell in found["cells"]):
        cells = {cell["layer"]: cell["deviation"] for cell in found["cells"] if cell["step"] == step}
        drawn.add_row(f"step {step:,}", *(f"{cells[layer]:+.3f}" for layer in layers))
    console.print(drawn)
    ranked = Table("signal", "Spearman", "known", box=None, pad_edge=False)
    for one in found["signals"]:
        ranked.add_row(one["name"], "-" if one["spearman"] is None else f"{one['spearman']:+.2f}", one["known"])
    console.print(ranked)
    band = found["band"]
    told = "no noise band: fewer than 3 seeds" if band is None else f"{band['low']:+.3f} to {band['high']:+.3f} %"
    print(f"baselines differ from their mean by: {told}")
    print(f"figures: {path_name(out / 'convergence.csv')}")
    if (out / "report.html").exists():
        print(f"report:  {path_name(out / 'report.html')}")


def show_study(found: Mapping[str, Any], out: Path) -> None:
    """Prints the figures of each arm at its last depth, with their range over seeds and the lead over the baseline."""
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    last = {one["name"]: one["depths"][-1] for one in found["encoders"]}
    value_of = {(one["encoder"], one["metric"]): one for one in found["values"] if one["depth"] == last[one["encoder"]]}
    lead_of = {(one["arm"], one["metric"]): one["mean"] for one in found["leads"]}
    names = [one["name"] for one in found["metrics"] if one["better"]]
    drawn = Table("last depth", *names, box=None, pad_edge=False)
    for arm in last:
        cells = []
        for name in names:
            value, low, high = (value_of[arm, name][part] for part in ("value", "low", "high"))
            lead = f" {lead_of[arm, name]:+.3g}" if (arm, name) in lead_of else ""
            cells.append("-" if value is None else f"{value:.3g} [{low:.3g}, {high:.3g}]{lead}")
        drawn.add_row(escape(arm), *cells)
    console.print(drawn)
    print(f"in brackets {found['bands']}, after them the mean lead over the baseline")
    print(f"figures: {path_name(out / 'study.csv')}")
    print(f"report:  {path_name(out / 'report.html')}")


PARTS = ("encoder", "decoder", "heads", "target")


def show_plan(found: Forecast) -> None:
    """Prints what each stage costs and holds, what the run takes beside others, and what that rests on."""
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    console.print(_flops_table(found))
    tables = {budget_words.on_what(found): budget_words.stage_lines(found)}
    tables[f"{found.config.steps * found.config.batch:.4g} clips"] = budget_words.run_lines(found)
    for title, (head, rows) in tables.items():
        drawn = Table(title=title)
        for number, name in enumerate(head):
            drawn.add_column(name, justify="right" if number else "left")
        for row in rows:
            drawn.add_row(*row)
        console.print(drawn)
    for sentence in budget_words.sentences(found):
        console.print(sentence, markup=False)
    made = RECIPES.get(found.config.recipe)
    if made is not None and made.saves:
        console.print(f"The paper's own figures: {made.saves}; docs/plan.md says what differs.", markup=False)


def _flops_table(found: Forecast) -> Table:
    config = found.config
    table = Table(
        title=f"{config.recipe}: {backbone_parameters(config.model, config.tokens) / 1e6:,.1f} M parameters, "
        f"{config.tokens} tokens, {config.context_tokens} of them context"
    )
    for name in ("steps", "frozen", "targets", "trained", "GFLOPs a clip", "x stage 1", *PARTS):
        table.add_column(name, justify="left" if name in ("steps", "targets") else "right")
    first = found.stages[0].clip.total
    for each in found.stages:
        cost = each.clip
        table.add_row(
            budget_words.steps_text(each),
            str(each.stage.frozen),
            each.stage.targets,
            "unknown" if math.isnan(each.live) else f"{each.live / 1e6:,.1f} M",
            f"{cost.total / 1e9:,.2f}",
            f"{cost.total / first:.2f}",
            *(_part(getattr(cost, part), cost.total) for part in PARTS),
        )
    if not foretold(found.stages):
        table.add_row("?", "?", UNKNOWN)
    return table


def _part(flops: int, total: int) -> str:
    """GFLOPs of a part, three digits of them, and its share."""
    return f"{flops / 1e9:#.3g} ({flops / total:.0%})" if flops else "0"


def show_fit(found: Sequence[Fit], machine: Machine, command: str) -> None:
    """Prints settings that fit into memory, the best first, and the command with these."""
    title = f"what fits into {bytes_text(found[0].limit)}"
    table = Table("options", "clips a micro-batch", "peak", f"{machine.device.name.upper()} hours", title=title)
    for each in found:
        figures = (str(each.micro), bytes_text(each.total.peak), hours_text(each.total.device_hours))
        table.add_row(each.options or "none needed", *figures)
    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    console.print(table)
    console.print(f"{command} {found[0].options}".rstrip(), markup=False)
    if "--plan.latent-fraction" in found[0].options:
        console.print("It changes what is learned: nothing fits with the run's own share of the patches.")
