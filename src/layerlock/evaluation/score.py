"""Readouts scored on a split: figures of every video, from its clips as they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from layerlock.data import Batch
from layerlock.errors import LayerlockError
from layerlock.evaluation.folder import load_tensors, save_tensors
from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.evaluation.readouts import Candidate
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks import Metric
from layerlock.features import Place, Reader, finite_clips, not_finite, read_features
from layerlock.features.clips import SpreadViews

Rows = dict[str, Tensor]
"""facts of videos by name"""
SAVE_EVERY = 50
"""batches from one save of a scoring under way to the next"""
SCORE, PREDICTED, FINITE, READ = "score:", "predicted:", "finite:", "read:"
"""what is kept of a readout: its figures, its class, whether it is finite; and of a place: whether features are"""
NOTHING = "there is nothing to measure in its clip"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of the videos of a split, by readout; the constant prediction is the one called ""."""

    score_svm: dict[str, Tensor]
    """`[S, V, M]`: by readout seed, video, metric"""
    predicted_v: dict[str, Tensor]
    """of the first seed"""
    label_v: Tensor
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
        """The mean of a metric over videos and seeds."""
        return float(self.score_v(name, metric).mean())

    def interval(self, name: str, metric: int, seed: int) -> Interval:
        """The same with its interval, over groups and seeds."""
        return bootstrap(self.score_svm[name][..., metric], self.group_v, seed=seed)

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


def score_split(
    sweep: Sweep,
    reader: Reader,
    views: SpreadViews,
    candidates: Sequence[Candidate],
    *,
    group_v: Tensor,
    file: Path,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Scores:
    """Scores `candidates` and the constant prediction on every video of `views`, from where `file` ends.

    Videos that cannot be decoded, have nothing to measure, or features that are not finite, are left out and listed.
    `group_v` are the groups of all videos of the split. Raises LayerlockError where none is left.
    """
    each = max(1, sweep.config.batch // views.views)
    count = -(-len(views.numbers) // each)
    rows = _read(file)
    stream = read_features(
        views,
        reader,
        batch=each * views.views,
        start=rows.batches,
        stop=count,
        device=device,
        workers=sweep.config.workers,
    )
    with closing(stream):
        for read in stream:
            rows.lost |= dict(read.clips.skipped)
            scored = _score(sweep, candidates, read.features, sweep.task.target(read.clips))
            rows.rows.append(scored | _facts(read.clips, views))
            rows.batches += 1
            progress(rows.batches, count)
            if rows.batches % SAVE_EVERY == 0 or rows.batches == count:
                save_tensors(file, rows.tensors(), {"batches": rows.batches, "lost": rows.lost})
    return _scores(rows, views, candidates, group_v, file)


def _read(file: Path) -> _Rows:
    found = load_tensors(file)
    if found is None:
        return _Rows()
    tensors, facts = found
    return _Rows(rows=[tensors], lost=facts["lost"], batches=facts["batches"])


def _score(sweep: Sweep, candidates: Sequence[Candidate], features: Mapping[Place, Tensor], target: Tensor) -> Rows:
    found: Rows = {}
    views = sweep.task.views
    predictions = {str(candidate): sweep.predict(candidate, features) for candidate in candidates}
    if sweep.summary is not None:
        predictions[""] = sweep.task.constant_prediction(sweep.summary, len(target))
    for name, prediction in predictions.items():
        scored = sweep.task.score(prediction, target)
        found[SCORE + name], found[PREDICTED + name] = scored.score_bm, scored.predicted_b
        found[FINITE + name] = _of_videos(prediction.flatten(1).isfinite().all(1), views)
    for (encoder, block), finite_b in finite_clips(features).items():
        found[f"{READ}{encoder}/{block}"] = _of_videos(finite_b, views)
    likely = torch.zeros_like(next(iter(predictions.values())))  # any that is finite
    found["measurable"] = sweep.task.score(likely, target).score_bm.isfinite().all(1)
    return {name: x.cpu() for name, x in found.items()}


def _of_videos(true_b: Tensor, views: int) -> Tensor:
    return true_b.unflatten(0, (-1, views)).all(1)


def _facts(clips: Batch, views: SpreadViews) -> Rows:
    label_b = clips.label_b.unflatten(0, (-1, views.views)).amin(1)
    return {"label": label_b.cpu(), "row": clips.index_b[:: views.views].cpu() // views.views}


def _scores(rows: _Rows, views: SpreadViews, candidates: Sequence[Candidate], group_v: Tensor, file: Path) -> Scores:
    """The figures that are there for all: a video is left out where nothing can be measured or its features are not
    finite, and a readout is dropped where what it predicts of another video is not finite.
    """
    found, videos = rows.tensors(), len(views.numbers)
    in_split_v = found["row"] < videos  # the last batch begins again with the first videos
    found = {name: x[in_split_v] for name, x in found.items()}
    measurable_v, dropped = found["measurable"], dict[str, str]()
    why = dict.fromkeys((~measurable_v).nonzero().flatten().tolist(), NOTHING)
    for candidate in candidates:
        read_v = found[f"{READ}{candidate.encoder}/{candidate.block}"]
        if measurable_v.any() and not read_v[measurable_v].any():
            dropped[str(candidate)] = f"{not_finite(candidate.place)} for any video"
        else:
            why = dict.fromkeys((~read_v).nonzero().flatten().tolist(), not_finite(candidate.place)) | why
    names = {row: views.source.video_name(views.numbers[int(found["row"][row])]) for row in sorted(why)}
    left_out = tuple((name, rows.lost.get(name, why[row])) for row, name in names.items())
    keep_v = torch.ones(videos, dtype=torch.bool)
    keep_v[list(why)] = False
    if not keep_v.any():
        first = ": ".join(left_out[0])
        raise LayerlockError(f"none of {videos} videos of the {file.stem} split could be scored; the first: {first}")
    for candidate in candidates:
        if str(candidate) not in dropped and not found[FINITE + str(candidate)][keep_v].all():
            dropped[str(candidate)] = f"what it predicts of the {file.stem} split is not finite; a lower rate may help"
    video_v = torch.tensor(list(views.numbers))[found["row"][keep_v]]
    whole = {replace(candidate, seed=0) for candidate in candidates} - {
        replace(candidate, seed=0) for candidate in candidates if str(candidate) in dropped
    }
    members = {str(one): [str(own) for own in candidates if replace(own, seed=0) == one] for one in whole}
    members |= {"": [""]} if SCORE in found else {}
    return Scores(
        score_svm={name: torch.stack([found[SCORE + own][keep_v] for own in seeds]) for name, seeds in members.items()},
        predicted_v={name: found[PREDICTED + name][keep_v] for name in members},
        label_v=found["label"][keep_v],
        video_v=video_v,
        group_v=group_v[video_v],
        left_out=left_out,
        dropped=dropped,
    )


def choose(validation: Scores, candidates: Sequence[Candidate], metric: Metric) -> tuple[Candidate, ...]:
    """The best candidate of each encoder and kind by the mean of the deciding metric on the validation split.

    Of equals the shallowest block, then the lowest rate.
    """
    return _best(validation, candidates, metric, lambda candidate: (candidate.encoder, candidate.kind))


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
