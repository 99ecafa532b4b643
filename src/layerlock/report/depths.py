"""What every depth of an encoder knows, as a chart (SVG). matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.setup import OURS
from layerlock.report.charts import CALM, SOFT, svg

_DASHES = ("--", ":", "-.")
_ASIDE = 0.08
"""blocks between the intervals of two encoders at one block"""


def depth_chart(results: Evaluation, kind: str) -> str:
    """The deciding metric on the test split against the block, with intervals, of the readouts of one kind; what has
    one block and the constant prediction as level lines. A data URI; no name of the user's is in it.
    """
    lines = {encoder: line for (encoder, one), line in results.by_block().items() if one == kind}
    curves = {name: line for name, line in lines.items() if len(line) > 1}
    levels = {name: next(iter(line.values())).mean for name, line in lines.items() if name not in curves}
    levels |= {row.encoder: row.metrics[results.metric].mean for row in results.rows if row.kind == "constant"}
    percent = results.metric in results.percent
    scale = 100 if percent else 1

    def draw(axes: Any) -> None:
        for number, (name, line) in enumerate(curves.items()):
            below = [scale * max(0.0, value.mean - value.low) if value.known else 0.0 for value in line.values()]
            above = [scale * max(0.0, value.high - value.mean) if value.known else 0.0 for value in line.values()]
            axes.errorbar(
                [block + _ASIDE * number for block in line],
                [scale * value.mean for value in line.values()],
                (below, above),
                marker="o",
                markersize=4,
                capsize=3,
                color=CALM if name == OURS else SOFT,
                label=_label(name),
                zorder=3 if name == OURS else 2,
            )
        for number, (name, mean) in enumerate(levels.items()):
            dashes = _DASHES[number % len(_DASHES)]
            axes.axhline(scale * mean, color=SOFT, linewidth=1, linestyle=dashes, label=_label(name))
        axes.set_xlabel("block", color=SOFT)
        axes.set_ylabel(f"{results.metric} in %" if percent else results.metric, color=SOFT)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=7, frameon=True, edgecolor="none")

    return svg(draw, (4.6, 3.2), grid=False)


def _label(name: str) -> str:
    return "this encoder" if name == OURS else name
