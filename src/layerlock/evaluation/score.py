"""Readouts scored on a split: figures of every video, from its clips as they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.evaluation.folder import load_tensors, save_tensors
from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.evaluation.readouts import Candidate
from layerlock.evaluation.setup import Setup
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks import FeatureTask, Metric
from layerlock.features import Place, Reader, finite_clips, not_finite, pooled_features, read_features
from layerlock.features.clips import SpreadViews

Rows = dict[str, Tensor]
"""facts of videos by name"""
SAVE_EVERY = 50
"""batches from one save of a scoring under way to the next"""
SCORE, PREDICTED, FINITE, READ, TRUTH = "score:", "predicted:", "finite:", "read:", "truth"
"""what is kept of a readout: its figures, its prediction, whether it is finite; of a place: whether features are; and
the target"""
NOTHING = "nothing to measure: its clip has no known target"
NOT_FINITE = "its features are not finite"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of the videos of a split, by readout; the constant prediction is the one called ""."""

    metrics: tuple[Metric, ...]
    score_svm: dict[str, Tensor]
    """`[S, V, M]`: by readout seed, video, metric"""
    truth_v: Tensor | None = None
    """class numbers or values, where each video has one"""
    predicted_v: dict[str, Tensor] = field(default_factory=dict)
    """what was predicted in place of them; of the first seed"""
    video_v: Tensor
    """the number of each video in its split"""
    group_v: Tensor
    """the number of the group that each belongs to"""
    left_out: tuple[tuple[str, str], ...] = ()
    """(video, reason) of those without a figure"""
    dropped: dict[str, str] = field(default_factory=dict)
    """readouts without a figure, and why"""

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.group_v.unique())

    def score_v(self, name: str, metric: int = 0) -> Tensor:
        """A metric of each video, the mean over seeds."""
        return self.score_svm[name][..., metric].mean(0)

    def mean(self, name: str, metric: int = 0) -> float:
        """The mean of a metric over videos and seeds, or its share of the variance."""
        value_sv, weight_v = self._weighted(name, metric)
        if weight_v is None:
            return float(value_sv.mean(0).mean())
        return float(value_sv.mean(0).sum() / weight_v.sum())

    def interval(self, name: str, metric: int, seed: int) -> Interval:
        """The same with its interval, over groups and seeds."""
        value_sv, weight_v = self._weighted(name, metric)
        return bootstrap(value_sv, self.group_v, weight_v=weight_v, seed=seed)

    def _weighted(self, name: str, metric: int) -> tuple[Tensor, Tensor | None]:
        """Values `[S, V]` whose sum over that of the weights `[V]` is the figure; no weights for a mean."""
        score_sv = self.score_svm[name][..., metric]
        if not self.metrics[metric].of_variance:
            return score_sv, None
        assert self.truth_v is not None, "a share of the variance is of a number for each video"
        spread_v = (self.truth_v - self.truth_v.mean()).square()
        return spread_v - score_sv, spread_v

    def ahead(self, name: str, other: str, *, higher_is_better: bool, seed: int, compared: int = 1) -> Interval:
        """By how much the deciding metric of a readout is better than another's, video by video and seed by seed."""
        lead_sv = self.score_svm[name][..., 0] - self.score_svm[other][..., 0]
        return bootstrap(lead_sv if higher_is_better else -lead_sv, self.group_v, seed=seed, compared=compared)


@dataclass
class _Rows:
    """What was found of the batches so far."""

    rows: list[Rows] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    batches: int = 0

    def tensors(self) -> Rows:
        """All rows, one below the other."""
        return {name: torch.cat([rows[name] for rows in self.rows]) for name in self.rows[0]}


def score_readouts(setup: Setup, sweep: Sweep, candidates: Sequence[Candidate], role: str) -> Scores:
    """Figures of readouts and the constant prediction on every video of a split, going on where its file ends.

    Videos that cannot be decoded, have nothing to measure, or features that are not finite, are left out and listed.
    Raises LayerlockError where none is left.
    """
    split, file = setup.splits[role], setup.folder.scores[role]
    views = setup.views(split)
    each = max(1, setup.config.batch // views.views)
    count = -(-len(views.numbers) // each)
    rows = _read(file)
    stream = read_features(
        views,
        Reader(setup.encoders, [candidate.place for candidate in candidates]),
        batch=each * views.views,
        start=rows.batches,
        stop=count,
        device=setup.device,
        workers=setup.config.workers,
    )
    doing = f"scoring {len(candidates)} readouts on the {role} split"
    with setup.progress(doing) as progress, closing(stream):
        for read in stream:
            rows.lost |= dict(read.clips.skipped)
            scored = _score(sweep, candidates, read.features, sweep.task.target_of(read.clips))
            scored["row"] = read.clips.index_b[:: views.views].cpu() // views.views
            rows.rows.append(scored)
            rows.batches += 1
            progress(rows.batches, count)
            if rows.batches % SAVE_EVERY == 0 or rows.batches == count:
                save_tensors(file, rows.tensors(), {"batches": rows.batches, "lost": rows.lost})
    return _scores(rows, views, candidates, split.group_v, role, sweep.task.metrics)


def _read(file: Path) -> _Rows:
    saved = load_tensors(file)
    if saved is None:
        return _Rows()
    tensors, facts = saved
    return _Rows(rows=[tensors], lost=facts["lost"], batches=facts["batches"])


def _score(sweep: Sweep, candidates: Sequence[Candidate], features: Mapping[Place, Tensor], target: Tensor) -> Rows:
    columns: Rows = {}
    views = sweep.task.views
    predictions = {str(one): prediction for one, prediction in sweep.predictions(candidates, features).items()}
    if sweep.summary is not None:
        predictions[""] = sweep.task.constant_prediction(sweep.summary, len(target))
    for name, prediction in predictions.items():
        scored = sweep.task.score(prediction, target)
        columns[SCORE + name] = scored.score_vm
        if scored.truth_v is not None and scored.predicted_v is not None:
            columns[TRUTH], columns[PREDICTED + name] = scored.truth_v, scored.predicted_v
        columns[FINITE + name] = _of_videos(prediction.flatten(1).isfinite().all(1), views)
    for (encoder, block), finite_b in finite_clips(features).items():
        columns[f"{READ}{encoder}/{block}"] = _of_videos(finite_b, views)
    likely = torch.zeros_like(next(iter(predictions.values())))  # any that is finite
    columns["measurable"] = sweep.task.score(likely, target).score_vm.isfinite().all(1)
    return {name: x.cpu() for name, x in columns.items()}


def _of_videos(true_b: Tensor, views: int) -> Tensor:
    return true_b.unflatten(0, (-1, views)).all(1)


def _scores(
    rows: _Rows,
    views: SpreadViews,
    candidates: Sequence[Candidate],
    group_v: Tensor,
    role: str,
    metrics: tuple[Metric, ...],
) -> Scores:
    """The figures that are there for all: a video is left out where nothing can be measured or its features are not
    finite, and a readout is dropped where what it predicts of another video is not finite.
    """
    columns, videos = rows.tensors(), len(views.numbers)
    in_split_v = columns["row"] < videos  # the last batch begins again with the first videos
    columns = {name: x[in_split_v] for name, x in columns.items()}
    measurable_v, dropped = columns["measurable"], dict[str, str]()
    why = dict.fromkeys((~measurable_v).nonzero().flatten().tolist(), NOTHING)
    for candidate in candidates:
        read_v = columns[f"{READ}{candidate.encoder}/{candidate.block}"]
        if measurable_v.any() and not read_v[measurable_v].any():
            dropped[str(candidate)] = f"{not_finite(candidate.place)} for any video"
        else:
            why = dict.fromkeys((~read_v).nonzero().flatten().tolist(), not_finite(candidate.place)) | why
    names = {row: views.source.video_name(views.numbers[int(columns["row"][row])]) for row in sorted(why)}
    left_out = tuple((name, rows.lost.get(name, why[row])) for row, name in names.items())
    keep_v = torch.ones(videos, dtype=torch.bool)
    keep_v[list(why)] = False
    if not keep_v.any():
        first = ": ".join(left_out[0])
        raise LayerlockError(f"none of {videos} videos of the {role} split could be scored; the first: {first}")
    for candidate in candidates:
        if str(candidate) not in dropped and not columns[FINITE + str(candidate)][keep_v].all():
            dropped[str(candidate)] = f"its predictions on the {role} split are not finite; try a lower learning rate"
    video_v = torch.tensor(list(views.numbers))[columns["row"][keep_v]]
    whole = {replace(candidate, seed=0) for candidate in candidates} - {
        replace(candidate, seed=0) for candidate in candidates if str(candidate) in dropped
    }
    members = {str(one): [str(own) for own in candidates if replace(own, seed=0) == one] for one in whole}
    members |= {"": [""]} if SCORE in columns else {}
    return Scores(
        metrics=metrics,
        score_svm={
            name: torch.stack([columns[SCORE + own][keep_v] for own in seeds]) for name, seeds in members.items()
        },
        truth_v=columns[TRUTH][keep_v] if TRUTH in columns else None,
        predicted_v={name: columns[PREDICTED + name][keep_v] for name in members if PREDICTED + name in columns},
        video_v=video_v,
        group_v=group_v[video_v],
        left_out=left_out,
        dropped=dropped,
    )


def score_features(setup: Setup, task: FeatureTask, candidates: Sequence[Candidate], role: str) -> Scores:
    """Figures of mean-pooled features of a split, which are kept in its file; of "validation" those of the splits that
    the task chooses on. Raises LayerlockError where no video has a figure.
    """
    split = setup.splits.together(task.chosen_on) if role == "validation" else setup.splits[role]
    views = setup.views(split)
    features, lost = _pooled(setup, candidates, views, setup.folder.scores[role])
    names = [views.name(row) for row in range(len(split))]
    finite_v = torch.stack([features[str(candidate)].isfinite().all(1) for candidate in candidates]).all(0).tolist()
    lost = {name: NOT_FINITE for name, finite in zip(names, finite_v, strict=True) if not finite} | lost
    rows_v = torch.tensor([row for row, name in enumerate(names) if name not in lost], dtype=torch.int64)
    truth_v, group_v = torch.tensor(split.values(task.target))[rows_v], split.group_v[rows_v]
    try:
        scored = {
            str(candidate): task.score_features(candidate.kind, features[str(candidate)][rows_v], truth_v, group_v)
            for candidate in candidates
        }
    except ValueError as error:
        raise LayerlockError(f"{split.index.root}: none of {len(rows_v)} videos could be scored ({error})") from None
    row_q, first = next(iter(scored.values()))
    alone = set(rows_v.tolist()) - set(rows_v[row_q].tolist())
    return Scores(
        metrics=task.metrics,
        score_svm={name: one.score_vm[None] for name, (_, one) in scored.items()},
        truth_v=first.truth_v,
        predicted_v={name: one.predicted_v for name, (_, one) in scored.items() if one.predicted_v is not None},
        video_v=rows_v[row_q],
        group_v=group_v[row_q],
        left_out=(*lost.items(), *((views.name(row), task.left_out) for row in sorted(alone))),
    )


def _pooled(
    setup: Setup, candidates: Sequence[Candidate], views: SpreadViews, file: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Mean-pooled features `[V, D]` of each candidate, and the videos that could not be decoded."""
    file_names = {str(candidate): f"{candidate.encoder}/{candidate.block}" for candidate in candidates}
    saved = load_tensors(file)
    if saved is not None and saved[0].keys() >= set(file_names.values()):  # names in older files are others
        return {name: saved[0][kept] for name, kept in file_names.items()}, saved[1]["lost"]
    batch, done = setup.config.batch, count(1)
    with setup.progress(f"features of {len(views)} videos") as progress:
        features, lost = pooled_features(
            views,
            setup.encoders,
            [candidate.place for candidate in candidates],
            batch=batch,
            device=setup.device,
            workers=setup.config.workers,
            each=lambda _: progress(next(done), -(-len(views) // batch)),
        )
    save_tensors(file, {f"{encoder}/{block}": x_vd for (encoder, block), x_vd in features.items()}, {"lost": lost})
    return {str(candidate): features[candidate.place] for candidate in candidates}, lost


def choose(validation: Scores, candidates: Sequence[Candidate], metric: Metric) -> tuple[Candidate, ...]:
    """The best candidate of each encoder, kind and number of shots by the mean of the deciding metric on the validation
    split. Of equals the shallowest block, then the lowest rate.
    """
    return _best(validation, candidates, metric, lambda candidate: (candidate.encoder, candidate.kind, candidate.shots))


def best_rates(validation: Scores, candidates: Sequence[Candidate], metric: Metric) -> tuple[Candidate, ...]:
    """The best candidate of each encoder, kind and block, in the same sense."""
    return _best(validation, candidates, metric, lambda candidate: (candidate.encoder, candidate.kind, candidate.block))


def _best(
    validation: Scores, candidates: Sequence[Candidate], metric: Metric, group_of: Callable[[Candidate], Hashable]
) -> tuple[Candidate, ...]:
    groups: dict[Hashable, list[Candidate]] = {}
    for candidate in candidates:
        if str(candidate) in validation.score_svm:  # it was not dropped
            groups.setdefault(group_of(candidate), []).append(candidate)
    sign = -1 if metric.higher_is_better else 1
    return tuple(
        min(group, key=lambda candidate: (sign * validation.mean(str(candidate)), candidate.block, candidate.lr))
        for group in groups.values()
    )
