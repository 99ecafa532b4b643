"""Curves over steps, each a small SVG picture with the switches marked. matplotlib is imported when one is drawn."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from layerlock.learn.plan import Tap
from layerlock.learn.plans.auto import AutoPlan
from layerlock.learn.targets import PatchTarget, of_patches
from layerlock.model.vit import ViTConfig
from layerlock.report.history import History, Line, keys, number, series
from layerlock.report.markup import card, cards, image, note

POINTS = 500
"""A curve is drawn from at most so many points, each the mean of its neighbourhood."""
MARKS = 10
"""So many switches are named along the top; more are marked by their lines alone."""

INK, SOFT, CALM = "#23282d", "#8a939c", "#1f5f7a"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": "#c9ced3",
    "axes.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.grid": True,
    "grid.color": "#eceae5",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "layerlock",
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart; `shade` in [0, 1] colours it by depth, None leaves it plain."""

    steps: Sequence[int]
    values: Sequence[float]
    name: str = ""
    shade: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn, and what is said of it. `level` is a horizontal line of reference."""

    title: str
    curves: tuple[Curve, ...]
    caption: str = ""
    log: bool = False
    level: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A switch, and what it switched to."""

    step: int
    name: str


def chart_section(history: History) -> list[Markup]:
    """All charts of a run as cards; where nothing was logged, a note."""
    if not history.lines:
        return [note("Nothing was logged, so there are no curves.")]
    drawn = [
        card(image(draw(chart, marks(history), history.step), alt(chart)), caption=chart.caption)
        for chart in charts(history)
        if any(math.isfinite(value) for curve in chart.curves for value in curve.values)
    ]
    return [cards(drawn, "charts")] if drawn else [note("No logged figure is a number, so there are no curves.")]


def marks(history: History) -> list[Mark]:
    """The switches that happened: named by the new target, or by the frozen blocks where the target stays."""
    found = []
    for before, after in pairwise(history.reached):
        name = after.targets.split("+")[-1] if after.targets != before.targets else f"{after.frozen} frozen"
        found.append(Mark(step=after.begin, name=name))
    return found


def charts(history: History) -> list[Chart]:
    """The charts of a run, from its log lines."""
    lines = history.lines
    watched = _watched(history.watched, history.config.model.depth)
    return [
        *_losses(history),
        *_plateaus(history),
        *watched,
        *_rates(lines),
        *_health(lines, history.config.model.width),
    ]


def _losses(history: History) -> Iterator[Chart]:
    lines, taps = history.lines, [tap for span in history.spans if span.stage for tap in span.stage.taps]
    names = keys(lines, "losses")
    pixels = [name for name in names if of_patches(name)]
    if pixels:
        weighted = ", weighted by how much each patch changes" if any(tap.motion_weight for tap in taps) else ""
        unit = _unit(history.config.model, taps)
        yield Chart(
            title="loss, pixels",
            curves=_by_target(lines, "losses", pixels),
            log=True,
            caption=f"Mean squared error of pixels {unit}{weighted}, averaged between log lines.",
        )
    latent = [name for name in names if name not in pixels]
    if latent:
        kinds = dict.fromkeys(tap.error for tap in taps if not isinstance(tap.target, PatchTarget)) or ["squared"]
        error = " or ".join("smooth absolute" if kind == "smooth" else kind for kind in kinds)
        yield Chart(
            title="loss, latent targets",
            curves=_by_target(lines, "losses", latent),
            log=True,
            caption=f"Mean {error} error of features. Every target has its own scale: compare within a stage only.",
        )
    if latent and all(tap.error == "squared" and not tap.motion_weight for tap in taps):
        yield Chart(
            title="loss / variance of the target",
            curves=_unexplained(lines, names),
            log=True,
            level=1.0,
            caption="One scale for all targets: at 1 no better than predicting the target's mean, at 0 perfect.",
        )


def _plateaus(history: History) -> Iterator[Chart]:
    """What the plan `Auto` decided by, with its threshold, of the parts that it may freeze and has not frozen yet."""
    plan = history.config.build_plan() if history.planned else None
    if not isinstance(plan, AutoPlan):
        return
    frozen_at = {line["step"]: line.get("frozen", 0) for line in history.lines}
    for line in history.lines:
        if line["step"] < history.config.steps:
            plan.observe(line["step"], line)
    most, threshold = plan.stages[-1].frozen, plan.settings.threshold

    def of_part(part: int) -> Curve:
        live = [(step, shares[part]) for step, shares in plan.course if part > frozen_at[step] or not frozen_at[step]]
        name, shade = f"block {part}" if part else "patch projection", part / max(most, 1)
        return Curve(steps=[step for step, _ in live], values=[share for _, share in live], name=name, shade=shade)

    told = (
        f"Over the learning rate; growth is measured over {plan.settings.lines} log line"
        f"{'s' * (plan.settings.lines > 1)}, and {threshold:.0%} or less is a plateau."
    )
    conclusion = plan.conclusion()
    yield Chart(
        title="growth of weight norms, share of the fastest",
        curves=tuple(of_part(part) for part in range(most + 1)),
        level=threshold,
        caption=f"{told} {conclusion[:1].upper()}{conclusion[1:]}." if conclusion else told,
    )


def _watched(lines: Sequence[Line], blocks: int) -> Iterator[Chart]:
    """Figures of every depth, from the lines of `watch.jsonl`."""
    depths = "Of the videos of run.watch, by depth: shallow ones dark, deep ones light."
    told = {
        "rankme": (1.0, "RankMe of the features", f"{depths} How many directions mean-pooled features occupy."),
        "cka": (
            1.0,
            "CKA to earlier features",
            f"{depths} Unbiased, to the features of the last switch; "
            "before the first one, to those of the line before.",
        ),
        "probe": (100.0, "probe over time, %", f"{depths} Accuracy of logistic regression, cross-validated."),
    }
    for name, (scale, title, caption) in told.items():
        reasons = dict.fromkeys(line["why"][name] for line in lines if name in line.get("why", ()))
        yield Chart(
            title=title,
            curves=tuple(_depth_curve(lines, name, depth, blocks, scale) for depth in range(blocks + 1)),
            floor=0.0 if name == "probe" else None,
            caption=" ".join([caption, *(f"No value ({reason})." for reason in reasons)]),
        )


def _depth_curve(lines: Sequence[Line], name: str, depth: int, blocks: int, scale: float) -> Curve:
    rows = [(line["step"], values[depth]) for line in lines if len(values := line.get(name) or ()) > depth]
    return Curve(
        steps=[step for step, _ in rows],
        values=[scale * number(value) for _, value in rows],
        name="input" if depth == 0 else f"block {depth}",
        shade=depth / blocks,
    )


def _unit(model: ViTConfig, taps: Sequence[Tap]) -> str:
    for unit in (tap.target.unit for tap in taps if isinstance(tap.target, PatchTarget)):
        if unit:
            return unit
    plain = set(model.mean) == {0.0} and set(model.std) == {1.0}
    return "in [0, 1]" if plain else "in the model's units (minus its mean, over its standard deviation)"


def _rates(lines: Sequence[Line]) -> Iterator[Chart]:
    yield _single(lines, "learning rate", ("lr",))
    norm = _single(lines, "norm of the gradients", ("gradient_norm",))
    yield replace(norm, log=True, floor=None, caption="Of all of them together, before they are clipped.")
    speed = _single(lines, "clips per second", ("timing", "clips_per_s"))
    yield replace(speed, caption="Whole steps: reading, training, logging.")
    steps, values = series(lines, "timing", "data_wait")
    yield Chart(
        title="time spent waiting for data, %",
        curves=(Curve(steps=steps, values=[100 * value for value in values]),),
        floor=0.0,
    )
    steps, values = series(lines, "timing", "memory_bytes")
    yield Chart(
        title="memory, GiB",
        curves=(Curve(steps=steps, values=[value / 2**30 for value in values]),),
        floor=0.0,
        caption="Peak of the accelerator between log lines; on a CPU the size of the training process.",
    )


def _health(lines: Sequence[Line], width: int) -> Iterator[Chart]:
    rank = _single(lines, "effective rank of the features", ("effective_rank",))
    yield replace(rank, caption=f"Of the context tokens before decoding; between 1 (collapsed) and the width, {width}.")
    cosine = _single(lines, "mean cosine between tokens", ("token_cosine",))
    yield replace(cosine, floor=None, caption="At 1 all tokens are the same vector.")
    yield Chart(
        title="variance of the target",
        curves=_by_target(lines, "target_variance", keys(lines, "target_variance")),
        log=True,
        caption="Over clips and tokens, averaged over dimensions; towards 0 the target collapses.",
    )
    yield Chart(
        title="weight norm by layer, change in %",
        curves=_norms(lines),
        caption="Against the first log line, shallow layers dark, deep ones light. Frozen layers stay where they are.",
    )


def _single(lines: Sequence[Line], title: str, path: tuple[str, ...]) -> Chart:
    steps, values = series(lines, *path)
    return Chart(title=title, curves=(Curve(steps=steps, values=values),), floor=0.0)


def _by_target(lines: Sequence[Line], table: str, names: Sequence[str]) -> tuple[Curve, ...]:
    shades = _shades(names)
    found = []
    for name, shade in zip(names, shades, strict=True):
        steps, values = series(lines, table, name)
        found.append(Curve(steps=steps, values=values, name=name, shade=shade))
    return tuple(found)


def _unexplained(lines: Sequence[Line], names: Sequence[str]) -> tuple[Curve, ...]:
    found = []
    for curve, name in zip(_by_target(lines, "losses", names), names, strict=True):
        variance = dict(zip(*series(lines, "target_variance", name), strict=True))
        pairs = [
            (step, loss / variance[step])
            for step, loss in zip(curve.steps, curve.values, strict=True)
            if variance.get(step)
        ]
        found.append(replace(curve, steps=[step for step, _ in pairs], values=[share for _, share in pairs]))
    return tuple(found)


def _norms(lines: Sequence[Line]) -> tuple[Curve, ...]:
    rows = [(line["step"], line["weight_norms"]) for line in lines if line.get("weight_norms")]
    layers = len(rows[0][1]) if rows else 0
    rows = [(step, norms) for step, norms in rows if len(norms) == layers]
    named = {0: "patch projection", 1: "block 1", (layers - 1) // 2: f"block {(layers - 1) // 2}"}
    named[layers - 1] = f"block {layers - 1}"
    return tuple(
        Curve(
            steps=[step for step, _ in rows],
            values=[
                100 * (norms[layer] / rows[0][1][layer] - 1) if rows[0][1][layer] else math.nan for _, norms in rows
            ],
            name=named.get(layer, ""),
            shade=layer / max(layers - 1, 1),
        )
        for layer in range(layers)
    )


def _shades(names: Sequence[str]) -> list[float | None]:
    latent = [name for name in names if name != "pixels"]
    return [None if name == "pixels" else latent.index(name) / max(len(latent) - 1, 1) for name in names]


def alt(chart: Chart) -> str:
    """What a chart shows, for those who do not see it: first and last value of up to four of its curves."""
    told = []
    for curve in chart.curves[:4]:
        values = [value for value in curve.values if math.isfinite(value)]
        if values:
            told.append(f"{curve.name or chart.title} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"Chart of {chart.title} over steps: {'; '.join(told)}"


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """The same curve from at most `points` points: means of equal stretches of it."""
    count = len(curve.steps)
    if count <= points:
        return curve
    edges = [round(i * count / points) for i in range(points + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    return replace(
        curve,
        steps=[round(sum(curve.steps[part]) / (part.stop - part.start)) for part in parts],
        values=[sum(curve.values[part]) / (part.stop - part.start) for part in parts],
    )


def draw(chart: Chart, marked: Sequence[Mark], last: int) -> str:
    """A chart over the steps 0 .. `last` as an SVG data URI."""

    def fill(axes: Any) -> None:
        _plot(axes, chart)
        _mark(axes, marked)
        step_axis(axes, last)
        axes.set_title(chart.title, loc="left", fontsize=9, color=INK, pad=16 if marked else 6)

    return svg(fill, (4.6, 2.7))


def svg(fill: Callable[[Any], None], size: tuple[float, float], *, grid: bool = True) -> str:
    """What `fill` puts into axes, `size` inches wide and high, as an SVG data URI."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        if not grid:
            axes.grid(visible=False)
        fill(axes)
        buffer = io.BytesIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _plot(axes: Any, chart: Chart) -> None:
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    if chart.log and any(value > 0 for curve in chart.curves for value in curve.values):
        axes.set_yscale("log")
        _readable_ticks(axes)
    many = len(chart.curves) > 6
    for full in chart.curves:
        curve = thin(full)
        axes.plot(
            curve.steps,
            curve.values,
            color=CALM if curve.shade is None else colours(0.05 + 0.8 * curve.shade),
            linewidth=1.0 if many else 1.4,
            marker="o" if len(curve.steps) <= 12 else None,
            markersize=2.5,
        )
    if chart.level is not None:
        axes.axhline(chart.level, color=SOFT, linewidth=0.8, linestyle=":")
    if chart.floor is not None:
        top = max((v for curve in chart.curves for v in curve.values if math.isfinite(v)), default=chart.floor)
        axes.set_ylim(chart.floor, chart.floor + max(1.08 * (top - chart.floor), 1e-9))
    _legend(axes, chart)


def step_axis(axes: Any, last: int) -> None:
    """Steps 0 .. `last` along, as whole numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, max(last, 1) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlabel("step", color=SOFT)


def _legend(axes: Any, chart: Chart) -> None:
    named = [(line, curve.name) for line, curve in zip(axes.lines, chart.curves, strict=False) if curve.name]
    if len(named) < 2:
        return
    every = -(-len(named) // 8)
    shown = [*named[:-1:every], named[-1]]
    axes.legend([line for line, _ in shown], [name for _, name in shown], ncols=2 if len(shown) > 4 else 1)


def _readable_ticks(axes: Any) -> None:
    """Plain numbers on a logarithmic axis, between the powers of ten where it spans few."""
    from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator

    class Plain(LogFormatter):
        def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
            return f"{x:g}"

    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(1.6, 0.6)))


def _mark(axes: Any, marked: Sequence[Mark]) -> None:
    every = -(-len(marked) // MARKS)
    for place, mark in enumerate(marked):
        axes.axvline(mark.step, color="#b9863b", linewidth=0.8, alpha=0.65, zorder=0.9)
        if place % every == 0:
            axes.text(
                mark.step,
                1.02,
                mark.name,
                transform=axes.get_xaxis_transform(),
                fontsize=7,
                color="#93641c",
                ha="center",
                va="bottom",
            )
