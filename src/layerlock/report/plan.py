"""`plan.html` and `plan.json`: what a run will take, as tables and cumulative curves (LayerLock, Fig. 3)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from layerlock.budget import words
from layerlock.budget.forecast import Forecast
from layerlock.budget.stages import StageBudget
from layerlock.errors import LayerlockError
from layerlock.files import write_whole
from layerlock.report.charts import Chart, Curve, Mark, alt, draw
from layerlock.report.markup import Section, card, cards, image, paragraph, table, title, write_page

PREFIXES = {"Z": 1e21, "E": 1e18, "P": 1e15, "T": 1e12}


def write_plan(found: Forecast, folder: Path) -> Path:
    """Writes both files into a folder; returns the path of the page.

    Raises ImportError where matplotlib is missing, LayerlockError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(figures(found), indent=2)
        write_whole(folder / "plan.json", lambda part: part.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise LayerlockError(f"{folder}: cannot be written ({error.strerror})") from None
    config = found.config
    what = f"{config.steps:,} steps of {config.batch:,} clips. Memory is that of {words.on_what(found)}."
    head = [title(f"{config.recipe}: what it takes"), paragraph(what, *words.sentences(found))]
    sections = [
        Section(name="curves", title="Over the run", parts=[cards(_charts(found), "charts")]),
        Section(name="whole", title="The whole run", parts=[table(*words.run_lines(found), words=(0,))]),
        Section(name="stages", title="Stages", parts=[table(*words.stage_lines(found), words=(0,))]),
    ]
    return write_page(folder / "plan.html", f"{config.recipe}: plan - layerlock", head, sections)


def figures(found: Forecast) -> dict[str, Any]:
    """All figures as JSON has them; None for what is not known."""
    machine = {
        "device": found.machine.device.name,
        "words": found.machine.device.words,
        "source": found.machine.device.source,
        "gpus": found.machine.gpus,
        "utilisation": None if found.measured else asdict(found.machine.utilisation),
        "currency": found.machine.currency,
    }
    stages = [
        {name: value for name, value in asdict(each).items() if name not in ("stage", "clip")}
        | {"frozen": each.stage.frozen, "targets": each.stage.targets, "flops_per_clip": each.clip.total}
        for each in found.stages
    ]
    compared = {"run": found.total, "baseline": found.baseline, "pixels": found.pixels}
    whole = {name: None if one is None else asdict(one) for name, one in compared.items()}
    return dict(_known({"recipe": found.config.recipe, "machine": machine, "stages": stages} | whole))


def _known(value: Any) -> Any:
    """The same without nan, which JSON has not."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _charts(found: Forecast) -> list[Markup]:
    """Cost and memory over the steps, of the run and of those that it is compared with."""
    steps, first = found.config.steps, replace(found.stages[0], end=found.config.steps)
    courses = {"this run": found.stages, "first stage throughout": (first,), "pixels throughout": found.pixel_stages}
    shaded = list(zip(courses.items(), (None, 0.8, 0.0), strict=True))
    prefix, unit = next((pair for pair in PREFIXES.items() if found.baseline.flops >= pair[1]), ("G", 1e9))
    costs = Chart(
        title=f"training cost so far, {prefix}FLOPs",
        curves=tuple(_spent(name, stages, steps, unit, shade) for (name, stages), shade in shaded if stages),
        floor=0.0,
        caption="Of all clips of the run; recomputation is not counted.",
    )
    peaks = Chart(
        title="peak memory of a device, GiB",
        curves=tuple(_peaks(name, stages, steps, shade) for (name, stages), shade in shaded if stages),
        floor=0.0,
        caption="Weights, moments, gradients, clips, what is kept for backward and what operators need.",
    )
    marks = [_mark(before, after) for before, after in pairwise(found.stages)]
    return [card(image(draw(chart, marks, steps), alt(chart)), caption=chart.caption) for chart in (costs, peaks)]


def _spent(name: str, stages: Sequence[StageBudget], steps: int, unit: float, shade: float | None) -> Curve:
    values = list(accumulate((each.flops(steps) / unit for each in stages), initial=0.0))
    return Curve(steps=[0, *(each.end or steps for each in stages)], values=values, name=name, shade=shade)


def _peaks(name: str, stages: Sequence[StageBudget], steps: int, shade: float | None) -> Curve:
    return Curve(
        steps=[step for each in stages for step in (each.begin, each.end or steps)],
        values=[each.peak / 2**30 for each in stages for _ in range(2)],
        name=name,
        shade=shade,
    )


def _mark(before: StageBudget, after: StageBudget) -> Mark:
    """A switch, named as in the report of a run."""
    changed = after.stage.targets != before.stage.targets
    return Mark(
        step=after.begin, name=after.stage.targets.split("+")[-1] if changed else f"{after.stage.frozen} frozen"
    )
