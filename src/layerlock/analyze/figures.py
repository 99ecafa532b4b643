"""What is added up over the batches of an analysis, and the figures that follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from layerlock.analyze.attention import AttentionDistances
from layerlock.analyze.explained import Explained
from layerlock.analyze.labelled import ONE_PATCH, Form, Labelled
from layerlock.analyze.metrics import (
    ATTENTION,
    FORMS,
    LABELLED,
    POINTS,
    POOLED,
    STEP_CKA,
    STEPS,
    TOKENS,
    VIEWS,
    Metric,
    OfLabelled,
)
from layerlock.analyze.table import computed, figure, finite
from layerlock.encoders import AttentionEncoder, FrozenEncoder
from layerlock.encoders.run import run_and_step
from layerlock.evaluation.intervals import Interval
from layerlock.features import Place, finite_clips, not_finite
from layerlock.measures.lidar import ViewMoments
from layerlock.measures.moments import Moments
from layerlock.measures.similarity import Alignment

FEWEST_OF_BATCH = 4
"""clips that a batch needs for its figures: those of an unbiased estimate"""
BIASED = "CKA"
UNBIASED = "CKA, unbiased"
CKA = {
    BIASED: "Linear CKA (arXiv 1905.00414) of mean-pooled features, from HSIC averaged over minibatches, each "
    "weighted by its clips; biased upwards, the more so the fewer clips a batch has.",
    UNBIASED: "The same with the unbiased estimator of HSIC (arXiv 2010.15327): near 0 for independent features.",
}
FIRST = "there is no depth before"
NO_ATTENTION = "this encoder does not give its attention"
EXPLAINED = "explained"
EXPLAINED_ABOUT = (
    "Share of the variance of the tokens of one depth (column) that a ridge regression from the same tokens at another "
    "depth (row) explains on held-out clips."
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Features of the videos of some rows, by place."""

    rows: list[int]
    features: Mapping[Place, Tensor]
    """of all tokens, `[B, N, D]`"""
    one_patch: Mapping[Place, Tensor]
    """mean-pooled, of the clips of which one patch is seen, `[B, D]`; empty where none is wanted"""
    views: Mapping[Place, Tensor]
    """mean-pooled, of V augmented views of each clip, `[B, V, D]`; empty where none is wanted"""

    def take(self, at: Sequence[int]) -> Seen:
        """Those of some of the rows; of the first ones nothing is copied."""
        chosen = slice(len(at)) if list(at) == list(range(len(at))) else at
        return Seen(
            rows=[self.rows[one] for one in at],
            features={place: x_bnd[chosen] for place, x_bnd in self.features.items()},
            one_patch={place: x_bd[chosen] for place, x_bd in self.one_patch.items()},
            views={place: x_bvd[chosen] for place, x_bvd in self.views.items()},
        )


class Figures:
    """Sums over batches. Memory does not grow with the clips but for those of `kept` rows, which have a class, and of
    `points`.
    """

    def __init__(
        self, encoders: Mapping[str, FrozenEncoder], kept: Collection[int], points: Collection[int], seed: int
    ) -> None:
        self.encoders = encoders
        self.places = [place for name, one in encoders.items() for place in _places(name, one)]
        self.moments = {place: Moments(encoders[place[0]].width) for place in self.places}
        self.of_batches: dict[tuple[Metric, Place], list[tuple[float, int]]] = {}
        self.alignments = {name: Alignment(unbiased=name == UNBIASED) for name in CKA}
        self.explained = {name: Explained(one.depth + 1, one.width, seed) for name, one in encoders.items()}
        self.attention = {
            name: AttentionDistances(one, seed) for name, one in encoders.items() if isinstance(one, AttentionEncoder)
        }
        self.kept, self.kept_rows = kept, list[int]()
        self.features: dict[tuple[Form, Place], list[Tensor]] = {}
        self.point_rows, self.points = points, {place: list[Tensor]() for place in self.places}
        self.views: dict[Place, ViewMoments] = {}
        self.clips = 0
        self.not_finite: dict[int, str] = {}
        """rows that do not count, and why"""

    def add(self, seen: Seen) -> None:
        """The clips of some rows; those whose features are not finite somewhere do not count."""
        if not seen.rows:
            return
        for features in (seen.features, seen.one_patch, seen.views):
            for place, finite_b in finite_clips(features).items():
                lost = [row for row, finite in zip(seen.rows, finite_b.tolist(), strict=True) if not finite]
                self.not_finite |= dict.fromkeys(lost, not_finite(place))
        seen = seen.take([at for at, row in enumerate(seen.rows) if row not in self.not_finite])
        self.clips += len(seen.rows)
        pooled = {place: seen.features[place].mean(1).cpu() for place in self.places}
        points = [at for at, row in enumerate(seen.rows) if row in self.point_rows]
        for place, x_bd in pooled.items():
            self.moments[place].add(x_bd)
            self.points[place].append(x_bd[points])
        for place, x_bvd in seen.views.items():
            self.views.setdefault(place, ViewMoments(x_bvd.shape[-1])).add(x_bvd)
        if len(seen.rows) >= FEWEST_OF_BATCH:
            self._add_batch(seen.features)
            for alignment in self.alignments.values():
                alignment.add([pooled[place] for place in self.places])
        self._keep(seen.take([at for at, row in enumerate(seen.rows) if row in self.kept]))

    def _keep(self, seen: Seen) -> None:
        """What figures of classes are of."""
        self.kept_rows += seen.rows
        for place in self.places if seen.rows else ():
            times = self.encoders[place[0]].grid[0]
            forms = {form: pool(seen.features[place], times) for form, pool in FORMS.items()}
            if seen.one_patch:
                forms[ONE_PATCH] = seen.one_patch[place]
            for form, x_vw in forms.items():
                self.features.setdefault((form, place), []).append(x_vw.cpu())

    def _add_batch(self, features: Mapping[Place, Tensor]) -> None:
        for place in self.places:
            for metric, of_tokens in TOKENS.items():
                self._note(metric, place, of_tokens(features[place]), len(features[place]))
        for name, encoder in self.encoders.items():
            places = _places(name, encoder)
            for before, after in pairwise(places):
                for metric, of_steps in STEPS.items():
                    self._note(metric, after, of_steps(features[before], features[after]), len(features[after]))
            of_depths = [features[place] for place in places]
            self.explained[name].add(of_depths)
            if name in self.attention:
                self.attention[name].add(of_depths)

    def _note(self, metric: Metric, place: Place, value: float, clips: int) -> None:
        if math.isfinite(value):
            self.of_batches.setdefault((metric, place), []).append((value, clips))

    def found(self, label_v: Tensor, group_v: Tensor, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Encoders, metrics, values and maps as plain data; `label_v` and `group_v` are of all rows."""
        values = list[dict[str, Any]]()
        for done, place in enumerate(self.places, 1):
            values += self._of_place(place, label_v[self.kept_rows], group_v[self.kept_rows])
            progress(done, len(self.places))
        metrics = [
            *POOLED,
            *POINTS,
            *(VIEWS if self.views else ()),
            *TOKENS,
            *STEPS,
            *ATTENTION,
            STEP_CKA,
            *self._of_classes(),
        ]
        return {
            "encoders": [
                {
                    "name": name,
                    "depths": list(range(one.depth + 1)),
                    "blocks": one.depth,
                    "width": one.width,
                    "tokens": math.prod(one.grid),
                    **_moment(name),
                }
                for name, one in self.encoders.items()
            ],
            "metrics": [vars(metric) for metric in metrics],
            "values": values,
            "maps": list(self._maps()),
        }

    def _of_place(self, place: Place, label_v: Tensor, group_v: Tensor) -> Iterator[dict[str, Any]]:
        for metric, of_moments in POOLED.items():
            why = "nothing varies, or there are too few directions"
            yield figure(metric, place, Interval(of_moments(self.moments[place])), why)
        for metric, of_points in POINTS.items():
            yield computed(metric, place, partial(of_points, torch.cat(self.points[place])))
        for metric, of_views in VIEWS.items() if self.views else ():
            yield figure(metric, place, Interval(of_views(self.views[place])), "views or clips do not differ")
        for metric in (*TOKENS, *STEPS):
            found = self.of_batches.get((metric, place))
            why = FIRST if metric in STEPS and place[1] == 0 else "not defined in any batch"
            yield figure(metric, place, Interval(fmean(*zip(*found, strict=True)) if found else math.nan), why)
        for metric in ATTENTION:
            yield self._reach(metric, place)
        row = self.places.index(place)
        alike = float(self._cka(UNBIASED)[row, row - 1]) if place[1] else math.nan
        yield figure(STEP_CKA, place, Interval(alike), "features do not vary, or too few clips" if place[1] else FIRST)
        features = {form: torch.cat(parts) for (form, at), parts in self.features.items() if at == place}
        videos = Labelled(features, label_v, group_v)
        for metric, (_, of_labelled) in self._of_classes().items():
            yield computed(metric, place, partial(of_labelled, videos))

    def _of_classes(self) -> dict[Metric, tuple[tuple[Form, ...], OfLabelled]]:
        """Those whose forms of features are there."""
        there = {form for form, _ in self.features}
        return {metric: how for metric, how in LABELLED.items() if there.issuperset(how[0])}

    def _reach(self, metric: Metric, place: Place) -> dict[str, Any]:
        """The mean over heads, the lowest and the highest of them, and each."""
        name, depth = place
        if depth == 0 or name not in self.attention:
            return figure(metric, place, Interval(math.nan), NO_ATTENTION if depth else FIRST)
        heads = self.attention[name].by_head(metric, depth)
        if not all(map(math.isfinite, heads)):
            return figure(metric, place, Interval(math.nan), "not defined in any batch")
        return figure(metric, place, Interval(fmean(heads), min(heads), max(heads)), "") | {"heads": heads}

    def _cka(self, name: str) -> Tensor:
        alignment = self.alignments[name]
        return alignment.cka() if alignment.batches else torch.full([len(self.places)] * 2, torch.nan)

    def _maps(self) -> Iterator[dict[str, Any]]:
        names = list(self.encoders)
        rows_of = {name: [at for at, place in enumerate(self.places) if place[0] == name] for name in names}
        for name, about in CKA.items():
            alike_pp = self._cka(name)
            for first, one in enumerate(names):
                for other in names[first:]:
                    yield _map(name, about, one, other, alike_pp[rows_of[one]][:, rows_of[other]])
        for name, explained in self.explained.items():
            yield _map(EXPLAINED, EXPLAINED_ABOUT, name, name, explained.share())


def _places(name: str, encoder: FrozenEncoder) -> list[Place]:
    """Every depth of an encoder, from its projected patches on."""
    return [(name, depth) for depth in range(encoder.depth + 1)]


def _moment(name: str) -> dict[str, Any]:
    """The run and the step of an encoder that is a checkpoint; None of others."""
    run, step = run_and_step(name) or (None, None)
    return {"run": None if run is None else str(run), "step": step}


def _map(name: str, about: str, rows: str, columns: str, values: Tensor) -> dict[str, Any]:
    plain = [[finite(value) for value in row] for row in values.tolist()]
    return {"name": name, "about": about, "rows": rows, "columns": columns, "values": plain}
