"""The deciding metric of an evaluation as charts (SVG): of every depth, and by training videos. matplotlib is imported
when one is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layerlock.evaluation import words
from layerlock.evaluation.intervals import Interval
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.setup import OURS
from layerlock.report.charts import CALM, SOFT, svg

Line = Mapping[int, Interval]
"""values by place on the axis"""
_DASHES = ("--", ":", "-.")
_MARKERS = "osD^v"
_ASIDE = 0.08
"""places between the intervals of two encoders at one place"""


def depth_chart(results: Evaluation, kind: str) -> str:
    """The metric on the test split against the block, with intervals, of the readouts of one kind; what has one block
    and the constant prediction as level lines. A data URI; no name of the user's is in it.
    """
    lines = {encoder: line for (encoder, one), line in results.by_block().items() if one == kind}
    curves = {name: line for name, line in lines.items() if len(line) > 1}
    levels = {name: next(iter(line.values())).mean for name, line in lines.items() if name not in curves}

    def axis(axes: Any) -> None:
        axes.set_xlabel("block", color=SOFT)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _chart(results, curves, levels, axis)


def shots_chart(results: Evaluation) -> str:
    """The metric on the test split against the number of training videos, with intervals, of what solved readouts read;
    the constant prediction as a level line. A data URI; no name of the user's is in it.
    """
    named = words.shots_named(results)
    place = {shots: number for number, shots in enumerate(named)}
    curves = {
        encoder: {place[shots]: value for shots, value in line.items()} for encoder, line in results.by_shots().items()
    }

    def axis(axes: Any) -> None:
        axes.set_xlabel("training videos of each class" if results.data["classes"] else "training videos", color=SOFT)
        axes.set_xticks(range(len(named)), [name for name, _ in named.values()])

    return _chart(results, curves, {}, axis)


def _chart(
    results: Evaluation, curves: Mapping[str, Line], levels: Mapping[str, float], axis: Callable[[Any], None]
) -> str:
    """Curves with intervals and level lines, among them the constant prediction; `axis` says what is along."""
    levels = {
        **levels,
        **{row.encoder: row.metrics[results.metric].mean for row in results.rows if row.kind == "constant"},
    }
    percent = results.metric in results.percent
    scale = 100 if percent else 1

    def draw(axes: Any) -> None:
        for number, (name, line) in enumerate(curves.items()):
            below = [scale * max(0.0, value.mean - value.low) if value.known else 0.0 for value in line.values()]
            above = [scale * max(0.0, value.high - value.mean) if value.known else 0.0 for value in line.values()]
            axes.errorbar(
                [place + _ASIDE * number for place in line],
                [scale * value.mean for value in line.values()],
                (below, above),
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                capsize=3,
                color=CALM if name == OURS else SOFT,
                label=_label(name),
                zorder=3 if name == OURS else 2,
            )
        for number, (name, mean) in enumerate(levels.items()):
            dashes = _DASHES[number % len(_DASHES)]
            axes.axhline(scale * mean, color=SOFT, linewidth=1, linestyle=dashes, label=_label(name))
        axis(axes)
        axes.set_ylabel(f"{results.metric} in %" if percent else results.metric, color=SOFT)
        axes.legend(fontsize=7, frameon=True, edgecolor="none")

    return svg(draw, (4.6, 3.2), grid=False)


def _label(name: str) -> str:
    return "this encoder" if name == OURS else name
