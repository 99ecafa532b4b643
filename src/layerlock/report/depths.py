"""What every depth of an encoder knows, as a chart (SVG). matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from layerlock.evaluation.intervals import Interval
from layerlock.evaluation.opened import OURS
from layerlock.evaluation.results import Evaluation
from layerlock.report.charts import CALM, SOFT
from layerlock.report.heatmaps import svg

_DASHES = ("--", ":", "-.")


def depth_chart(found: Evaluation, kind: str) -> str:
    """The deciding metric on the test part against the block, with intervals, of the readouts of one kind; features
    without depth and the constant prediction as level lines. A data URI.
    """
    lines: dict[str, dict[int, Interval]] = defaultdict(dict)
    for one in found.sweep:
        if one.kind == kind and one.metrics:
            lines[one.encoder][one.block] = one.metrics[found.metric]
    scale = 100 if found.metric in found.percent else 1
    levels = {row.encoder: row.metrics[found.metric].mean for row in found.rows if row.kind == "constant"}
    levels |= {name: line[min(line)].mean for name, line in lines.items() if len(line) == 1}

    def draw(axes: Any) -> None:
        for name, line in lines.items():
            if len(line) > 1:
                blocks, values = sorted(line), [line[block] for block in sorted(line)]
                means = [scale * value.mean for value in values]
                below = [scale * (value.mean - value.low) for value in values]
                above = [scale * (value.high - value.mean) for value in values]
                colour = CALM if name == OURS else SOFT
                label = found.encoder if name == OURS else name
                axes.errorbar(blocks, means, (below, above), marker="o", ms=4, capsize=3, color=colour, label=label)
        for number, (name, mean) in enumerate(levels.items()):
            style = _DASHES[number % len(_DASHES)]
            axes.axhline(scale * mean, color=SOFT, linewidth=1, linestyle=style, label=name)
        axes.set_xlabel("block", color=SOFT)
        axes.set_ylabel(f"{found.metric}{' in %' * (scale == 100)}", color=SOFT)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=7)

    return svg(draw, (4.6, 3.2))
