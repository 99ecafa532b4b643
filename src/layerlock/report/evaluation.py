"""`report.html` of an evaluation: the table, the choice by depth and learning rate, mistakes, and clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from markupsafe import Markup
from torch import Tensor

from layerlock.evaluation import words
from layerlock.evaluation.folder import EvaluationFolder, load_tensors
from layerlock.evaluation.results import Clip, Evaluation, Swept
from layerlock.evaluation.tasks import TASKS, Target
from layerlock.report import heatmaps, pictures
from layerlock.report.curves import depth_chart, shots_chart
from layerlock.report.markup import (
    Section,
    card,
    cards,
    heading,
    image,
    note,
    paragraph,
    row,
    table,
    title,
    write_page,
)
from layerlock.report.neighbours import short

LEFT_OUT = 50
"""files shown that were left out"""


def write_evaluation(results: Evaluation) -> Path:
    """Writes `report.html` into the folder of an evaluation that is done; returns its path.

    Raises ImportError where matplotlib or pillow is missing, LayerlockError where the folder cannot be written.
    """
    import matplotlib  # noqa: F401 - before any work, so that a missing extra is told at once

    folder = EvaluationFolder(results.out)
    better = "Higher" if results.higher_is_better else "Lower"
    head = [
        title(f"{results.task.capitalize()} from frozen features"),
        paragraph(f"{results.encoder} on {results.settings['config']['data']}.", *words.sentences(results)),
        paragraph(f"{better} {results.metric} is better."),
    ]
    shown = [section for section in _sections(folder, results) if section.parts]
    return write_page(folder.report, f"{results.encoder}: {results.task} - layerlock", head, shown)


def _sections(folder: EvaluationFolder, results: Evaluation) -> list[Section]:
    """All sections in their order; those without parts have nothing to show."""
    head, rows = words.table(results)
    shown = [table(head, rows, words=(0, 1)), *map(paragraph, words.verdicts(results))]
    return [
        Section(name="results", title="Results", parts=shown),
        Section(name="sweep", title="The choice", parts=_sweeps(results)),
        Section(name="depths", title="By depth", parts=_depths(results)),
        Section(name="shots", title="By training videos", parts=_shots(results)),
        Section(name="mistakes", title="Mistakes", parts=_mistakes(results)),
        Section(name="clips", title="Best and worst clips", parts=_clips(folder, results)),
        Section(name="left-out", title="Left out", parts=_left_out(results)),
    ]


def _sweeps(results: Evaluation) -> list[Markup]:
    """A map of depths and learning rates for each encoder and kind of readout."""
    drawn = []
    for (encoder, kind), group in groupby(results.sweep, key=lambda one: (one.encoder, one.kind)):
        swept = sorted(group, key=lambda one: (one.block, one.lr or 0))
        name = words.called(results, encoder)
        drawn.append(
            card(image(_map(results, swept), f"{results.metric} of {name} by depth"), caption=f"{name}, {kind}")
        )
    return [
        paragraph(f"{words.chosen(results)}; the best of each map is in the table above."),
        cards(drawn, "charts"),
    ]


def _depths(results: Evaluation) -> list[Markup]:
    """Every block on the test split; nothing where one block was read."""
    head, rows = words.by_block(results)
    if not rows:
        return []
    drawn = [
        card(image(depth_chart(results, kind), f"{results.metric} by block"), caption=f"{results.encoder}, {kind}")
        for kind in dict.fromkeys(kind for _, kind in results.by_block())
    ]
    said = f"{results.metric} of the test split after every block that was read; nothing was chosen by it."
    return [paragraph(said), cards(drawn, "charts"), table(head, rows)]


def _shots(results: Evaluation) -> list[Markup]:
    """Learning curves; nothing where few training videos were not asked for."""
    head, rows = words.by_shots(results)
    if not rows:
        return []
    drawn = image(shots_chart(results), f"{results.metric} by training videos")
    said = f"{results.metric} of the test split by solved readouts, fitted to so many training videos of each class."
    return [
        paragraph(said if results.data["classes"] else said.replace(" of each class", "")),
        cards([card(drawn, caption=results.encoder)], "charts"),
        table(head, rows),
    ]


def _map(results: Evaluation, swept: Sequence[Swept]) -> str:
    blocks, lrs = sorted({one.block for one in swept}), sorted({one.lr or 0.0 for one in swept})
    value = {(one.lr or 0.0, one.block): one.score for one in swept}
    return heatmaps.heatmap(
        [[value.get((lr, block), math.nan) for block in blocks] for lr in lrs],
        rows=[f"{lr:g}" if lr else "" for lr in lrs],
        columns=[str(block) for block in blocks],
        labels=("block", "learning rate" if any(lrs) else ""),
        percent=results.metric in results.percent,
        higher_is_better=results.higher_is_better,
    )


def _mistakes(results: Evaluation) -> list[Markup]:
    parts = []
    if results.matrix:
        drawn = heatmaps.confusion_matrix(results.matrix)
        parts.append(card(image(drawn, "Confusion matrix"), caption="Rows: the class; columns: what was predicted."))
    if results.confusion:
        parts.append(table(["class", "predicted", "videos"], results.confusion, words=(0, 1)))
    return parts


def _clips(folder: EvaluationFolder, results: Evaluation) -> list[Markup]:
    """Pictures of the test clips that went best and worst, with their depth where that is the task."""
    loaded = load_tensors(folder.gallery)
    if loaded is None:
        return [note("No pictures were kept.")]
    shown = [*results.best, *results.worst]
    target = TASKS[results.task].target
    kept = [{name: x[at] for name, x in loaded[0].items()} for at in range(len(shown))]
    strips = [_strips(one, target, _range(loaded[0].get("true"), target)) for one in kept]
    drawn = [card(*strip, caption=_caption(results, clip)) for strip, clip in zip(strips, shown, strict=True)]
    count = len(results.best)
    return [heading("Best"), cards(drawn[:count], "clips"), heading("Worst"), cards(drawn[count:], "clips")]


def _strips(shown: dict[str, Tensor], target: Target, low_high: tuple[float, float]) -> list[Markup]:
    strips = [row("frames", pictures.photo_strip(shown["video"]), "Frames of the clip")]
    scale = f"{target.name}, bright {low_high[0]:.3g} to dark {low_high[1]:.3g} {target.unit}".rstrip()
    for name, said in (("true", f"measured {scale}"), ("predicted", f"predicted {scale}")):
        if name in shown:
            strips.append(row(said, pictures.photo_strip(_map_picture(shown[name], target, low_high)), said))
    return strips


def _range(true_kfhw: Tensor | None, target: Target) -> tuple[float, float]:
    valid = None if true_kfhw is None else true_kfhw[target.known(true_kfhw)]
    return (0.0, 1.0) if valid is None or not len(valid) else (float(valid.min()), float(valid.max()))


def _map_picture(map_fhw: Tensor, target: Target, low_high: tuple[float, float]) -> Tensor:
    """Low (near) is bright, high (far) is dark, what is not known is dark blue: uint8 `[F, 3, H, W]`."""
    low, high = low_high
    share = 1 - ((map_fhw - low) / max(high - low, 1e-6)).clamp(0, 1)
    grey_fhw = (share.nan_to_num() * 255).round().to(torch.uint8)
    known_f1hw = target.known(map_fhw)[:, None]
    blue = torch.tensor([0, 40, 60], dtype=torch.uint8)[:, None, None]
    return grey_fhw[:, None].expand(-1, 3, -1, -1).where(known_f1hw, blue)


def _caption(results: Evaluation, clip: Clip) -> str:
    name = short(clip.name, str(Path(results.settings["config"]["data"]).absolute()))
    said = f"{clip.label}, predicted {clip.predicted}" if clip.label else ""
    return f"{name} ({results.metric} {words.figure(results, results.metric, clip.score)}) {said}"


def _left_out(results: Evaluation) -> list[Markup]:
    if not results.left_out:
        return []
    rows = results.left_out[:LEFT_OUT]
    more = [note(f"and {len(results.left_out) - LEFT_OUT} more")] if len(results.left_out) > LEFT_OUT else []
    return [table(["file", "reason"], rows, long=(0, 1)), *more]
