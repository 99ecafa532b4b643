"""Results as the words and figures of a table, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

from layerlock.evaluation.intervals import FEWEST, Interval
from layerlock.evaluation.results import Evaluation, Row
from layerlock.evaluation.setup import OURS
from layerlock.evaluation.splits.shots import DRAWS
from layerlock.evaluation.tasks import TASKS

DROPPED = 5
"""readouts named in a sentence"""


def table(results: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what was read, how, where, and every metric with its 95 % interval; a mark where a baseline was
    not beaten.
    """
    metrics = list(results.rows[0].metrics) if results.rows else []
    head = ["features", "readout", "block", "rate", f"validation {results.metric}", *metrics]
    return head, [
        [
            f"{called(results, row.encoder)}{' !' if row.not_above else ''}",
            row.kind,
            "" if row.block is None else f"{row.block} of {row.of_blocks}",
            "" if row.lr is None else f"{row.lr:g}",
            figure(results, results.metric, row.validation),
            *(interval(results, name, row.metrics[name]) for name in metrics),
        ]
        for row in results.rows
    ]


def by_block(results: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a line for each block, with the deciding metric on the test split and its interval for all
    that was read at several blocks.
    """
    lines = {who: line for who, line in results.by_block().items() if len(line) > 1}
    names = [f"{called(results, encoder)}, {kind}" for encoder, kind in lines]
    return ["block", *names], [
        [
            str(block),
            *(interval(results, results.metric, line[block]) if block in line else "" for line in lines.values()),
        ]
        for block in sorted({block for line in lines.values() for block in line})
    ]


def by_shots(results: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a line for each number of training videos, with the deciding metric on the test split and its
    interval for all that solved readouts read.
    """
    lines = results.by_shots()
    head = ["shots", "training videos", *(called(results, encoder) for encoder in lines)]
    return head, [
        [
            name,
            str(videos),
            *(interval(results, results.metric, line[shots]) if shots in line else "" for line in lines.values()),
        ]
        for shots, (name, videos) in shots_named(results).items()
        if lines
    ]


def shots_named(results: Evaluation) -> dict[int | None, tuple[str, int]]:
    """What each number of training videos of a class is called, and how many these are of all classes."""
    few: dict[int | None, tuple[str, int]] = {int(n): (n, count) for n, count in results.data.get("shots", {}).items()}
    return few | {None: ("all", results.data["videos"]["train"])}


def figure(results: Evaluation, metric: str, value: float) -> str:
    """A value of a metric."""
    return f"{100 * value:.1f} %" if metric in results.percent else _number(value)


def interval(results: Evaluation, metric: str, value: Interval) -> str:
    """A mean and its interval."""
    percent = metric in results.percent
    mean, low, high = (
        f"{100 * number:.1f}" if percent else _number(number) for number in (value.mean, value.low, value.high)
    )
    return f"{mean} [{low}, {high}]" if value.known else f"{mean} [no interval]"


def _number(value: float) -> str:
    """Four digits after the point, or in all where that would be none or many."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def called(results: Evaluation, encoder: str) -> str:
    """What was read, of the names in rows."""
    return results.encoder if encoder == OURS else encoder


def verdicts(results: Evaluation) -> list[str]:
    """Over which baselines the interval of the lead excludes zero, and over which it does not."""
    return [
        f"{sign}{_of(results, row)} {told}"
        for row in results.rows
        if row.ahead
        for sign, told in _verdicts(results, row)
    ]


def _of(results: Evaluation, row: Row) -> str:
    return f"{called(results, row.encoder)} ({row.kind}): {results.metric}"


def _verdicts(results: Evaluation, row: Row) -> Iterator[tuple[str, str]]:
    """A mark where the encoder is not shown to be better, and what is known."""
    decided = {name: lead for name, lead in row.ahead.items() if name not in row.undecided}
    worse = [name for name, lead in decided.items() if lead.high < 0]
    level = [name for name in decided if name in row.not_above and name not in worse]
    better = [name for name in decided if name not in row.not_above]
    what = f"95 % interval{' (of all leads at once)' if results.compared > 1 else ''}"
    for sign, names, before, after in (
        ("! ", list(row.undecided), "no verdict on the lead over", f": fewer than {FEWEST} groups of test videos"),
        ("! ", worse, "significantly worse than", f": the {what} excludes zero"),
        ("! ", level, "not significantly different from", f": the {what} includes zero"),
        ("", better, "significantly better than", f": the {what} excludes zero"),
    ):
        if names:
            leads = ", ".join(f"{name} (by {interval(results, results.metric, row.ahead[name])})" for name in names)
            yield sign, f"{before} {leads}{after}."


def chosen(results: Evaluation) -> str:
    """How the block, and the learning rate where there is one, came about."""
    splits = " and ".join(TASKS[results.task].chosen_on)
    rated = any(one.lr is not None for one in results.sweep)
    what = "Block and learning rate were" if rated else "The block was"
    return f"{what} chosen by {results.metric} on the {splits} split"


def sentences(results: Evaluation) -> list[str]:
    """What has to be said with the table."""
    data = results.data
    videos, groups = data["videos"], data["groups"]
    leads = "; leads over baselines are taken video by video, and negative where the baseline is better"
    config = results.settings.get("config", {})
    seeds = config.get("readout_seeds", 1)
    drawn = "groups of videos" if groups["test"] < videos["test"] else "videos"
    seeded = f" and {seeds} readout seeds" * (seeds > 1)
    said = [
        f"{data['layout']}; {data['splits']}: {videos['train']} train, {videos['validation']} validation, "
        f"{videos['test']} test.",
        f"{chosen(results)}; all other figures are of the test split, with 95 % bootstrap intervals over its "
        f"{drawn}{seeded}{leads if any(row.ahead for row in results.rows) else ''}.",
        f"Groups: {data['grouping']}; {groups['train']} train, {groups['validation']} validation, "
        f"{groups['test']} test.",
        *(f"{note}." for note in data["notes"]),
    ]
    if results.curve:
        said.append(
            f"Figures of few training videos are means over {DRAWS} draws of them, which their intervals include; the "
            "block was chosen on the whole validation split."
        )
    if config.get("appearance") == "no":
        said.append("Solved readouts see changes over time alone.")
    if results.dropped:
        told = "; ".join(f"{name}: {reason}" for name, reason in results.dropped[:DROPPED])
        said.append(f"! Readouts that were dropped: {len(results.dropped)}; {told}.")
    if results.left_out:
        said.append(f"Files and clips that were left out: {len(results.left_out)}; results.json names them.")
    return said
