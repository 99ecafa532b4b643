"""Tables of numbers as coloured maps (SVG). matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from layerlock.report.charts import INK, SOFT, svg


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    percent: bool,
    higher_is_better: bool,
) -> str:
    """A map with the number in every cell, the best one framed; a data URI. `labels` are those below and beside."""

    def draw(axes: Any) -> None:
        axes.imshow(values, cmap="viridis" if higher_is_better else "viridis_r", aspect="auto")
        best = _best(values, higher_is_better)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                told = "dropped" if math.isnan(value) else f"{100 * value:.1f}" if percent else f"{value:.3f}"
                weight = "bold" if (y, x) == best else "normal"
                axes.text(x, y, told, ha="center", va="center", fontsize=8, color=INK, weight=weight, bbox=_BOX)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(labels[0], color=SOFT)
        axes.set_ylabel(labels[1], color=SOFT)

    return svg(draw, (4.6, 1.2 + 0.4 * len(rows)), grid=False)


def confusion_matrix(counts: Sequence[Sequence[int]]) -> str:
    """Shares of each row, from white to dark; a data URI."""
    shares = [[count / max(sum(line), 1) for count in line] for line in counts]

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted class", color=SOFT)
        axes.set_ylabel("class", color=SOFT)

    return svg(draw, (4.6, 4.2), grid=False)


_BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}


def _best(values: Sequence[Sequence[float]], higher_is_better: bool) -> tuple[int, int]:
    places = [(y, x) for y, line in enumerate(values) for x in range(len(line)) if not math.isnan(line[x])]
    return (max if higher_is_better else min)(places, key=lambda place: values[place[0]][place[1]])
