"""Readouts scored on a part: figures of every video, from its clips as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerlock.data import batches, crop_and_flip
from layerlock.errors import LayerlockError
from layerlock.evaluation.clips import SpreadViews
from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.evaluation.readouts import Reader, Setting
from layerlock.evaluation.saved import load_tensors, save_tensors
from layerlock.evaluation.sweep import Sweep

SAVE_EVERY = 50
"""batches from one save of a scoring under way to the next"""
SCORE, PREDICTED = "score:", "predicted:"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of the videos of a part, by readout; the constant prediction is the one called ""."""

    score_vm: dict[str, Tensor]
    predicted_v: dict[str, Tensor]
    label_v: Tensor
    video_v: Tensor
    """the number of each video in its part"""
    left_out: tuple[tuple[str, str], ...]
    """(video, reason) of those without a figure"""

    def mean(self, name: str, metric: int = 0) -> float:
        """The mean of a metric over the videos."""
        return float(self.score_vm[name][:, metric].mean())

    def interval(self, name: str, metric: int, seed: int) -> Interval:
        """The same with its interval."""
        return bootstrap(self.score_vm[name][:, metric], seed=seed)

    def ahead(self, name: str, other: str, *, higher_is_better: bool, seed: int) -> Interval:
        """By how much the deciding metric of a readout is better than another's, video by video."""
        lead_v = self.score_vm[name][:, 0] - self.score_vm[other][:, 0]
        return bootstrap(lead_v if higher_is_better else -lead_v, seed=seed)


@dataclass
class _Rows:
    """What was found of the batches so far."""

    parts: list[dict[str, Tensor]] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    batches: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """All rows, one below the other."""
        return {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}


def score_part(
    sweep: Sweep,
    reader: Reader,
    views: SpreadViews,
    settings: Sequence[Setting],
    *,
    file: Path,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Scores:
    """Scores `settings` and the constant prediction on every video of `views`, going on from `file` where it is there.

    Videos that cannot be decoded, or have nothing to measure, are left out and listed. Raises LayerlockError where none
    is left.
    """
    each = max(1, sweep.config.batch // views.views)
    count = -(-len(views.numbers) // each)
    rows = _read(file)
    stream = batches(views, batch=each * views.views, start=rows.batches, stop=count, workers=sweep.config.workers)
    with closing(stream) as loader:
        for batch in loader:
            rows.lost |= dict(batch.skipped)
            clips = batch.to(device)
            target, features = sweep.task.target(clips), reader.read(crop_and_flip(clips))
            rows.parts.append(_score(sweep, settings, features, target) | _facts(batch.label_b, batch.index_b, views))
            rows.batches += 1
            progress(rows.batches, count)
            if rows.batches % SAVE_EVERY == 0 or rows.batches == count:
                save_tensors(file, rows.tensors(), {"batches": rows.batches, "lost": rows.lost})
    return _scores(rows, views, file)


def _read(file: Path) -> _Rows:
    found = load_tensors(file)
    if found is None:
        return _Rows()
    tensors, facts = found
    return _Rows(parts=[tensors], lost=facts["lost"], batches=facts["batches"])


def _score(sweep: Sweep, settings: Sequence[Setting], features: Any, target: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    predictions = {str(setting): sweep.predict(setting, features) for setting in settings}
    if sweep.summary is not None:
        predictions[""] = sweep.task.constant_prediction(sweep.summary, len(target))
    for name, prediction in predictions.items():
        scored = sweep.task.score(prediction, target)
        found[SCORE + name], found[PREDICTED + name] = scored.score_bm.cpu(), scored.predicted_b.cpu()
    return found


def _facts(label_b: Tensor, index_b: Tensor, views: SpreadViews) -> dict[str, Tensor]:
    label_b = label_b.unflatten(0, (-1, views.views)).amin(1)
    return {"label": label_b, "row": index_b[:: views.views] // views.views}


def _scores(rows: _Rows, views: SpreadViews, file: Path) -> Scores:
    found, videos = rows.tensors(), len(views.numbers)
    in_part_v = found["row"] < videos  # the last batch begins again with the first videos
    finite_v = torch.stack([value.isfinite().all(1) for key, value in found.items() if key.startswith(SCORE)]).all(0)
    names = [views.source.video_name(views.numbers[row]) for row in found["row"][in_part_v & ~finite_v].tolist()]
    left_out = tuple((name, rows.lost.get(name, "there is nothing to measure in its clip")) for name in names)
    keep_v = in_part_v & finite_v
    if not keep_v.any():
        first = ": ".join(left_out[0])
        raise LayerlockError(f"none of {videos} videos of the {file.stem} part could be scored; the first: {first}")
    numbers = torch.tensor(list(views.numbers))
    return Scores(
        score_vm=_named(found, SCORE, keep_v),
        predicted_v=_named(found, PREDICTED, keep_v),
        label_v=found["label"][keep_v],
        video_v=numbers[found["row"][keep_v]],
        left_out=left_out,
    )


def _named(found: dict[str, Tensor], kind: str, keep_v: Tensor) -> dict[str, Tensor]:
    return {key.removeprefix(kind): value[keep_v] for key, value in found.items() if key.startswith(kind)}
