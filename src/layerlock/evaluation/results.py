"""What an evaluation found: rows of a table, what was chosen and from what, as data and as `results.json`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.evaluation.intervals import FEWEST, SHOWN_FROM, Interval, proves
from layerlock.evaluation.readouts import Candidate
from layerlock.evaluation.score import Scores
from layerlock.evaluation.setup import OURS, Setup
from layerlock.evaluation.tasks.task import SOLVED
from layerlock.files import write_whole
from layerlock.settings import to_dict
from layerlock.train.folder import versions

MATRIX_CLASSES = 40
"""up to so many classes the confusion matrix is kept whole"""
CONFUSIONS, SHOWN = 20, 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: the readout of one kind that was chosen for an encoder, or a constant prediction, on the
    test split.
    """

    encoder: str
    """name of the encoder, of a baseline, or of a constant prediction"""
    kind: str
    """attention, linear, cosine; constant where nothing is read"""
    block: int | None = None
    """the chosen block"""
    of_blocks: int | None = None
    fraction: float | None = None
    lr: float | None = None
    """the chosen learning rate, where anything was trained"""
    shots: int | None = None
    """training videos of each class that it was fitted to; None: all"""
    validation: float
    """the deciding metric on what it was chosen on: the validation split, for retrieval with the training split"""
    metrics: dict[str, Interval]
    """by name, on the test split"""
    baseline: bool
    ahead: dict[str, Interval] = field(default_factory=dict)
    """for the encoder: by how much the deciding metric is better than that of each baseline that is read in the same
    way, and of the constant prediction, on the same videos; these intervals cover all leads at once"""
    not_above: tuple[str, ...] = ()
    """those of `ahead` whose interval does not lie above zero, or is of too few groups"""
    undecided: tuple[str, ...] = ()
    """those of too few groups for a verdict"""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One readout of the sweep: `score` is the deciding metric on what is chosen on."""

    encoder: str
    kind: str
    block: int
    fraction: float
    lr: float | None
    score: float
    metrics: dict[str, Interval] = field(default_factory=dict)
    """by name, on the test split, of the learning rate that is the best of its block; {} of others"""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A test video that is shown: its number in the test split, what it is, what was said of it."""

    video: int
    name: str
    score: float
    label: str = ""
    predicted: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was found. `out` is the folder; `signal` the one that stopped it before it was done."""

    out: str
    encoder: str
    task: str
    metric: str
    """the deciding one"""
    higher_is_better: bool
    percent: tuple[str, ...]
    """metrics that are shown times 100"""
    data: dict[str, Any]
    """layout, how the splits came about, what a group is, videos and groups of each, classes, notes"""
    rows: tuple[Row, ...] = ()
    curve: tuple[Row, ...] = ()
    """solved readouts of few training videos, each chosen as those of `rows`; without leads"""
    sweep: tuple[Swept, ...] = ()
    confusion: tuple[tuple[str, str, int], ...] = ()
    """(class, predicted class, test videos) of the chosen readout, most frequent mistakes first"""
    matrix: tuple[tuple[int, ...], ...] = ()
    """test videos by class (rows) and predicted class, where there are few classes"""
    best: tuple[Clip, ...] = ()
    worst: tuple[Clip, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """(video, reason) of those that are missing from a figure"""
    dropped: tuple[tuple[str, str], ...] = ()
    """(readout, reason) of those that gave something that is not finite; they could not be chosen"""
    compared: int = 0
    """number of reported leads; their intervals hold jointly"""
    signal: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """the config and versions"""

    def by_block(self) -> dict[tuple[str, str], dict[int, Interval]]:
        """The deciding metric on the test split by block, of each encoder and kind of readout."""
        lines: dict[tuple[str, str], dict[int, Interval]] = {}
        for one in sorted(self.sweep, key=lambda one: one.block):
            if one.metrics:
                lines.setdefault((one.encoder, one.kind), {})[one.block] = one.metrics[self.metric]
        return lines

    def by_shots(self) -> dict[str, dict[int | None, Interval]]:
        """The deciding metric on the test split by training videos of each class (None: all) of what solved readouts
        read; {} where few were not asked for.
        """
        lines: dict[str, dict[int | None, Interval]] = {}
        for row in (*self.curve, *self.rows) if self.curve else ():
            if row.kind in SOLVED:
                lines.setdefault(row.encoder, {})[row.shots] = row.metrics[self.metric]
        return lines

    def save(self) -> Path:
        """Writes `results.json`. Raises LayerlockError."""
        path = Path(self.out) / "results.json"
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n"
        try:
            write_whole(path, lambda part: part.write_text(text, encoding="utf-8", errors="surrogateescape"))
        except OSError as error:
            raise LayerlockError(f"{path}: cannot be written ({error.strerror})") from None
        return path


def _finite(value: Any) -> Any:
    """The same with null for infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def head(setup: Setup, signal: int | None = None) -> Evaluation:
    """What is known of an evaluation before its results."""
    splits, metrics = setup.splits, setup.task.metrics
    data: dict[str, Any] = {
        "layout": splits.layout,
        "splits": splits.how,
        "videos": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        "grouping": splits.grouping,
        "groups": {
            role: len(set(split.groups))
            for role, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
        },
        "classes": len(setup.task.classes),
        "shots": {str(shots): int(setup.label_v.bincount().clamp(max=shots).sum()) for shots in setup.config.few},
        "notes": [*setup.notes, *_scarce(setup)],
    }
    return Evaluation(
        out=setup.config.out,
        encoder=setup.config.encoder,
        task=setup.config.task,
        metric=metrics[0].name,
        higher_is_better=metrics[0].higher_is_better,
        percent=tuple(metric.name for metric in metrics if metric.percent),
        data=data,
        signal=signal,
        settings={"config": to_dict(setup.config), "versions": versions()},
    )


def _scarce(setup: Setup) -> list[str]:
    """What has fewer training videos than shots."""
    notes, names = [], setup.task.classes
    for shots in setup.config.few:
        count_c = torch.bincount(setup.label_v, minlength=len(names)).tolist()
        scarce = [f"{name} ({count})" for name, count in zip(names, count_c, strict=False) if count < shots]
        if scarce:
            what = f"Classes with fewer than {shots} training videos"
            notes.append(f"{what}, all of which are used, {len(scarce)}: {', '.join(scarce[:10])}")
        elif not names and count_c[0] < shots:
            notes.append(f"Training videos: {count_c[0]}, fewer than {shots}; all are used")
    return notes


def tabled(
    setup: Setup,
    candidates: Sequence[Candidate],
    chosen: Sequence[Candidate],
    validation: Scores,
    test: Scores,
    skipped: dict[str, str],
) -> Evaluation:
    """The whole of the results: a row for each chosen candidate and one for the constant prediction, if there is one;
    all candidates as the sweep, with figures of the test split where `test` has them; those of few shots apart.
    """
    constant = setup.task.constant
    few = [candidate for candidate in chosen if candidate.shots is not None]
    chosen = [candidate for candidate in chosen if candidate.shots is None]
    rivals = {candidate: _rivals(candidate, chosen, constant) for candidate in chosen}
    compared = sum(map(len, rivals.values()))
    rows = [_row(setup, candidate, validation, test, rivals[candidate], compared) for candidate in chosen]
    if constant is not None:
        rows.append(_constant_row(setup, constant, validation, test))
    main = str(next(candidate for candidate in chosen if candidate.encoder == OURS))
    best, worst = extremes(setup, test, main)
    results = head(setup)
    if test.groups < FEWEST:
        results.data["notes"].append(
            f"Groups of test videos that could be scored: {test.groups}; fewer than {FEWEST} are too few for a "
            f"verdict, and fewer than {SHOWN_FROM} for an interval"
        )
    return replace(
        results,
        rows=tuple(rows),
        curve=tuple(_row(setup, candidate, validation, test, {}, compared) for candidate in few),
        sweep=tuple(
            _swept(setup, candidate, validation, test)
            for candidate in candidates
            if candidate.shots is None and str(candidate) in validation.score_svm
        ),
        compared=compared,
        best=best,
        worst=worst,
        left_out=(*setup.splits.rejected, *skipped.items(), *validation.left_out, *test.left_out),
        **_confusions(setup, test, main),
    )


def _rivals(candidate: Candidate, chosen: Sequence[Candidate], constant: str | None) -> dict[str, str]:
    """What the encoder is compared with, and what that is called in the scores: baselines read in the same way, and the
    constant prediction. A baseline is compared with nothing.
    """
    if candidate.encoder != OURS:
        return {}
    same = {other.encoder: str(other) for other in chosen if other.encoder != OURS and other.kind == candidate.kind}
    return same if constant is None else same | {constant: ""}


def _row(
    setup: Setup,
    candidate: Candidate,
    validation: Scores,
    test: Scores,
    rivals: Mapping[str, str],
    compared: int,
) -> Row:
    seed, better = setup.config.seed, setup.task.metrics[0].higher_is_better
    ahead = {
        rival: test.ahead(str(candidate), name, higher_is_better=better, seed=seed, compared=compared)
        for rival, name in rivals.items()
    }
    return Row(
        encoder=candidate.encoder,
        kind=candidate.kind,
        block=candidate.block,
        of_blocks=setup.encoders[candidate.encoder].depth,
        fraction=candidate.fraction,
        lr=candidate.lr or None,
        shots=candidate.shots,
        validation=validation.mean(str(candidate)),
        metrics=_intervals(setup, test, str(candidate)),
        baseline=candidate.encoder != OURS,
        ahead=ahead,
        not_above=tuple(rival for rival, lead in ahead.items() if not proves(lead, test.groups)),
        undecided=tuple(ahead) if test.groups < FEWEST else (),
    )


def _constant_row(setup: Setup, name: str, validation: Scores, test: Scores) -> Row:
    return Row(
        encoder=name,
        kind="constant",
        validation=validation.mean(""),
        metrics=_intervals(setup, test, ""),
        baseline=True,
    )


def _intervals(setup: Setup, test: Scores, name: str) -> dict[str, Interval]:
    seed = setup.config.seed
    return {metric.name: test.interval(name, column, seed) for column, metric in enumerate(setup.task.metrics)}


def _swept(setup: Setup, candidate: Candidate, validation: Scores, test: Scores) -> Swept:
    tested = str(candidate) in test.score_svm
    return Swept(
        encoder=candidate.encoder,
        kind=candidate.kind,
        block=candidate.block,
        fraction=candidate.fraction,
        lr=candidate.lr or None,
        score=validation.mean(str(candidate)),
        metrics=_intervals(setup, test, str(candidate)) if tested else {},
    )


def extremes(setup: Setup, test: Scores, name: str) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """The test videos on which a readout did best and worst; of equals those that come first in a random order."""
    score_v = test.score_v(name) * (1 if setup.task.metrics[0].higher_is_better else -1)
    shuffled = torch.randperm(len(score_v), generator=torch.Generator().manual_seed(setup.config.seed))
    order = shuffled[score_v[shuffled].argsort(descending=True, stable=True)].tolist()
    count = min(SHOWN, len(order) // 2) or len(order)

    def told(value_v: Tensor | None, row: int) -> str:
        return "" if value_v is None else setup.task.told(float(value_v[row]))

    def clip(row: int) -> Clip:
        video = int(test.video_v[row])
        return Clip(
            video=video,
            name=setup.splits.test.name(video),
            score=float(test.score_v(name)[row]),
            label=told(test.truth_v, row),
            predicted=told(test.predicted_v.get(name), row),
        )

    return tuple(clip(row) for row in order[:count]), tuple(clip(row) for row in order[::-1][:count])


def _confusions(setup: Setup, test: Scores, name: str) -> dict[str, Any]:
    """The most frequent mistakes and, for few classes, the whole matrix."""
    classes = setup.task.classes
    if not classes or test.truth_v is None:
        return {}
    pairs = Counter(zip(test.truth_v.tolist(), test.predicted_v[name].tolist(), strict=True))
    wrong = [(classes[a], classes[b], count) for (a, b), count in pairs.most_common() if a != b][:CONFUSIONS]
    mistakes: dict[str, Any] = {"confusion": tuple(wrong)}
    if len(classes) <= MATRIX_CLASSES:
        mistakes["matrix"] = tuple(tuple(pairs[a, b] for b in range(len(classes))) for a in range(len(classes)))
    return mistakes
