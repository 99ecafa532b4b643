"""Results as the words and figures of a table, for the terminal and the page."""

from __future__ import annotations

from layerlock.evaluation.intervals import Interval
from layerlock.evaluation.opened import OURS
from layerlock.evaluation.results import Evaluation


def table(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what was read, how, where, and every metric with its 95 % interval; a mark where a baseline was
    not beaten.
    """
    metrics = list(found.rows[0].metrics) if found.rows else []
    head = ["features", "readout", "block", "rate", f"validation {found.metric}", *metrics]
    return head, [
        [
            f"{called(found, row.encoder)}{' !' if row.not_above else ''}",
            row.kind,
            "" if row.block is None else f"{row.block} of {row.of_blocks}",
            "" if row.lr is None else f"{row.lr:g}",
            figure(found, found.metric, row.validation),
            *(interval(found, name, row.metrics[name]) for name in metrics),
        ]
        for row in found.rows
    ]


def by_block(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a line for each block, with the deciding metric on the test part and its interval for all that was
    read at several blocks.
    """
    lines = {who: line for who, line in found.by_block().items() if len(line) > 1}
    names = [f"{called(found, encoder)}, {kind}" for encoder, kind in lines]
    return ["block", *names], [
        [str(block), *(interval(found, found.metric, line[block]) if block in line else "" for line in lines.values())]
        for block in sorted({block for line in lines.values() for block in line})
    ]


def figure(found: Evaluation, metric: str, value: float) -> str:
    """A value of a metric."""
    return f"{100 * value:.1f} %" if metric in found.percent else f"{value:.4f}"


def interval(found: Evaluation, metric: str, value: Interval) -> str:
    """A mean and its interval."""
    scale, digits = (100, 1) if metric in found.percent else (1, 4)
    mean, low, high = (f"{scale * number:.{digits}f}" for number in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def called(found: Evaluation, encoder: str) -> str:
    """What was read, of the names in rows."""
    return found.encoder if encoder == OURS else encoder


def verdicts(found: Evaluation) -> list[str]:
    """Which baselines were not beaten and which were, and by how much."""
    said = []
    for row in (row for row in found.rows if row.ahead):
        leads = {name: f"{name} (by {interval(found, found.metric, lead)})" for name, lead in row.ahead.items()}
        beaten = [lead for name, lead in leads.items() if name not in row.not_above]
        level = [lead for name, lead in leads.items() if name in row.not_above]
        what = f"{called(found, row.encoder)} ({row.kind}): {found.metric}"
        if level:
            said.append(f"! {what} no better beyond doubt than {', '.join(level)}.")
        if beaten:
            said.append(f"{what} better than {', '.join(beaten)}.")
    return said


def chosen(found: Evaluation) -> str:
    """How the block, and the learning rate where there is one, came about."""
    if found.task == "retrieval":
        return f"The block was chosen by {found.metric} on the training and the validation part together"
    return f"Block and learning rate were chosen by {found.metric} on the validation part"


def sentences(found: Evaluation) -> list[str]:
    """What has to be said with the table."""
    videos, groups = found.data["videos"], found.data["groups"]
    leads = "; leads over baselines are taken one by one of these, and negative where the baseline is better"
    said = [
        f"{found.data['layout']}; {found.data['parts']}: {videos['train']} train, {videos['validation']} validation, "
        f"{videos['test']} test.",
        f"{chosen(found)}; all other figures are of the test part, with 95 % bootstrap intervals over its "
        f"{'clips' if found.task == 'depth' else 'videos'}{leads if any(row.ahead for row in found.rows) else ''}.",
    ]
    said.append(
        f"Groups: {found.data['grouping']}; {groups['train']} train, {groups['validation']} validation, "
        f"{groups['test']} test."
    )
    said += [f"{note}." for note in found.data["notes"]]
    if found.left_out:
        said.append(f"Files and clips that were left out: {len(found.left_out)}; results.json names them.")
    return said
