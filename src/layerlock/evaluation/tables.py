"""Scores become a choice and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from layerlock.config import to_dict
from layerlock.evaluation.intervals import SHOWN_FROM, proves
from layerlock.evaluation.opened import OURS, Opened
from layerlock.evaluation.readouts import Setting
from layerlock.evaluation.results import FEWEST, Clip, Evaluation, Interval, Row, Swept
from layerlock.evaluation.scoring import Scores
from layerlock.evaluation.tasks import Metric
from layerlock.train.folder import versions

MATRIX_CLASSES = 40
"""up to so many classes the confusion matrix is kept whole"""
CONFUSIONS, SHOWN = 20, 4


def choose(validation: Scores, settings: Sequence[Setting], metric: Metric) -> tuple[Setting, ...]:
    """The best setting of each encoder and kind by the mean of the deciding metric on the validation part.

    Of equals the shallowest block, then the lowest rate.
    """
    return _best(validation, settings, metric, lambda setting: (setting.encoder, setting.kind))


def best_rates(validation: Scores, settings: Sequence[Setting], metric: Metric) -> tuple[Setting, ...]:
    """The best setting of each encoder, kind and block, in the same sense."""
    return _best(validation, settings, metric, lambda setting: (setting.encoder, setting.kind, setting.block))


def _best(
    validation: Scores, settings: Sequence[Setting], metric: Metric, group_of: Callable[[Setting], Hashable]
) -> tuple[Setting, ...]:
    groups: dict[Hashable, list[Setting]] = {}
    for setting in settings:
        if str(setting) in validation.score_svm:  # it was not dropped
            groups.setdefault(group_of(setting), []).append(setting)
    sign = -1 if metric.higher_is_better else 1
    return tuple(
        min(group, key=lambda setting: (sign * validation.mean(str(setting)), setting.block, setting.lr))
        for group in groups.values()
    )


def head(opened: Opened, metrics: Sequence[Metric], signal: int | None = None) -> Evaluation:
    """What is known of an evaluation before its results."""
    parts = opened.parts
    data: dict[str, Any] = {
        "layout": parts.layout,
        "parts": parts.how,
        "videos": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "grouping": parts.grouping,
        "groups": {
            role: len(set(part.groups))
            for role, part in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
        },
        "classes": len(parts.classes) if opened.config.task != "depth" else 0,
        "notes": list(parts.notes),
    }
    return Evaluation(
        out=opened.config.out,
        encoder=opened.config.encoder,
        task=opened.config.task,
        metric=metrics[0].name,
        higher_is_better=metrics[0].higher_is_better,
        percent=tuple(metric.name for metric in metrics if metric.percent),
        data=data,
        signal=signal,
        settings={"config": to_dict(opened.config), "versions": versions()},
    )


def tabled(
    opened: Opened,
    metrics: Sequence[Metric],
    constant: str | None,
    settings: Sequence[Setting],
    chosen: Sequence[Setting],
    validation: Scores,
    test: Scores,
    skipped: dict[str, str],
) -> Evaluation:
    """The whole of the results: a row for each chosen setting and one for the constant prediction, if there is one;
    all settings as the sweep, with figures of the test part where `test` has them.
    """
    rivals = {setting: _rivals(setting, chosen, constant) for setting in chosen}
    compared = sum(map(len, rivals.values()))
    rows = [_row(opened, metrics, setting, validation, test, rivals[setting], compared) for setting in chosen]
    if constant is not None:
        rows.append(_constant_row(opened, metrics, constant, validation, test))
    main = str(next(setting for setting in chosen if setting.encoder == OURS))
    best, worst = extremes(opened, test, main, metrics[0])
    found = head(opened, metrics)
    if test.groups < FEWEST:
        found.data["notes"].append(
            f"Groups of test videos that could be scored: {test.groups}; fewer than {FEWEST} are too few for a "
            f"verdict, and fewer than {SHOWN_FROM} for an interval"
        )
    return replace(
        found,
        rows=tuple(rows),
        sweep=tuple(
            _swept(opened, metrics, setting, validation, test)
            for setting in settings
            if str(setting) in validation.score_svm
        ),
        compared=compared,
        best=best,
        worst=worst,
        left_out=(*opened.parts.rejected, *skipped.items(), *validation.left_out, *test.left_out),
        **_confusions(opened, test, main),
    )


def _rivals(setting: Setting, chosen: Sequence[Setting], constant: str | None) -> dict[str, str]:
    """What the encoder is compared with, and what that is called in the scores: baselines read in the same way, and the
    constant prediction. A baseline is compared with nothing.
    """
    if setting.encoder != OURS:
        return {}
    same = {other.encoder: str(other) for other in chosen if other.encoder != OURS and other.kind == setting.kind}
    return same if constant is None else same | {constant: ""}


def _row(
    opened: Opened,
    metrics: Sequence[Metric],
    setting: Setting,
    validation: Scores,
    test: Scores,
    rivals: Mapping[str, str],
    compared: int,
) -> Row:
    seed, better = opened.config.seed, metrics[0].higher_is_better
    ahead = {
        rival: test.ahead(str(setting), name, higher_is_better=better, seed=seed, compared=compared)
        for rival, name in rivals.items()
    }
    return Row(
        encoder=setting.encoder,
        kind=setting.kind,
        block=setting.block,
        of_blocks=opened.encoders[setting.encoder].depth,
        fraction=setting.fraction,
        lr=setting.lr or None,
        validation=validation.mean(str(setting)),
        metrics=_intervals(test, str(setting), metrics, seed),
        baseline=setting.encoder != OURS,
        ahead=ahead,
        not_above=tuple(rival for rival, lead in ahead.items() if not proves(lead, test.groups)),
        undecided=tuple(ahead) if test.groups < FEWEST else (),
    )


def _constant_row(opened: Opened, metrics: Sequence[Metric], name: str, validation: Scores, test: Scores) -> Row:
    return Row(
        encoder=name,
        kind="constant",
        validation=validation.mean(""),
        metrics=_intervals(test, "", metrics, opened.config.seed),
        baseline=True,
    )


def _intervals(test: Scores, name: str, metrics: Sequence[Metric], seed: int) -> dict[str, Interval]:
    return {metric.name: test.interval(name, column, seed) for column, metric in enumerate(metrics)}


def _swept(opened: Opened, metrics: Sequence[Metric], setting: Setting, validation: Scores, test: Scores) -> Swept:
    tested = str(setting) in test.score_svm
    return Swept(
        encoder=setting.encoder,
        kind=setting.kind,
        block=setting.block,
        fraction=setting.fraction,
        lr=setting.lr or None,
        score=validation.mean(str(setting)),
        metrics=_intervals(test, str(setting), metrics, opened.config.seed) if tested else {},
    )


def extremes(opened: Opened, test: Scores, name: str, metric: Metric) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """The test videos on which a readout did best and worst; of equals those that come first in a random order."""
    score_v = test.score_v(name) * (1 if metric.higher_is_better else -1)
    shuffled = torch.randperm(len(score_v), generator=torch.Generator().manual_seed(opened.config.seed))
    order = shuffled[score_v[shuffled].argsort(descending=True, stable=True)].tolist()
    count = min(SHOWN, len(order) // 2) or len(order)

    def clip(row: int) -> Clip:
        classes, predicted = opened.parts.classes, int(test.predicted_v[name][row])
        video = int(test.video_v[row])
        return Clip(
            video=video,
            name=opened.parts.test.name(video),
            score=float(test.score_v(name)[row]),
            label=classes[int(test.label_v[row])] if predicted >= 0 else "",
            predicted=classes[predicted] if predicted >= 0 else "",
        )

    return tuple(clip(row) for row in order[:count]), tuple(clip(row) for row in order[::-1][:count])


def _confusions(opened: Opened, test: Scores, name: str) -> dict[str, Any]:
    """The most frequent mistakes and, for few classes, the whole matrix."""
    predicted_v, classes = test.predicted_v[name], opened.parts.classes
    if (predicted_v < 0).any():
        return {}
    pairs = Counter(zip(test.label_v.tolist(), predicted_v.tolist(), strict=True))
    wrong = [(classes[a], classes[b], count) for (a, b), count in pairs.most_common() if a != b][:CONFUSIONS]
    found: dict[str, Any] = {"confusion": tuple(wrong)}
    if len(classes) <= MATRIX_CLASSES:
        found["matrix"] = tuple(tuple(pairs[a, b] for b in range(len(classes))) for a in range(len(classes)))
    return found
