"""The figures of every depth: a table of pure functions, and what each of them needs of the features.

A new figure is a function in `layerlock.measures` (or `analyze/labelled.py`) and a line in a table here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from layerlock.analyze.labelled import (
    MEAN,
    ONE_PATCH,
    OVER_TIME,
    Form,
    Labelled,
    linear_probe,
    nearest_is_right,
    occlusion_drop,
    retrieval,
)
from layerlock.evaluation.intervals import Interval
from layerlock.measures import rank, tokens
from layerlock.measures.dimension import intrinsic_dimension
from layerlock.measures.lidar import ViewMoments
from layerlock.measures.moments import Moments
from layerlock.model.readout import over_time, standardized


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a figure is called and what it says."""

    name: str
    about: str
    """definition and source"""
    better: Literal["higher", "lower"] | None = None
    """None: neither is better as such"""
    percent: bool = False


FORMS: dict[Form, Callable[[Tensor, int], Tensor]] = {
    MEAN: lambda x_bnd, times: x_bnd.float().mean(1),
    OVER_TIME: lambda x_bnd, times: over_time(standardized(x_bnd), times),
}
"""one vector of a clip's tokens `[B, N, D]` of so many times, `[B, W]`, for figures of labelled videos"""

OfMoments = Callable[[Moments], float]
OfPoints = Callable[[Tensor], Interval]
OfViews = Callable[[ViewMoments], float]
OfTokens = Callable[[Tensor], float]
OfSteps = Callable[[Tensor, Tensor], float]
Distance = Callable[[Tensor], Tensor]
OfLabelled = Callable[[Labelled], Interval]

POOLED: dict[Metric, OfMoments] = {
    Metric(
        name="effective rank",
        about="Exponential of the entropy of the eigenvalues of the covariance of mean-pooled features: how many "
        "directions they occupy (Roy and Vetterli, 2007, on eigenvalues).",
        better="higher",
    ): lambda moments: rank.effective_rank(moments.centred()),
    Metric(
        name="RankMe",
        about="Exponential of the entropy of the singular values of uncentred mean-pooled features (arXiv 2210.02885).",
        better="higher",
    ): lambda moments: rank.rankme(moments.uncentred()),
    Metric(
        name="participation ratio",
        about="Squared sum of the eigenvalues of the covariance of mean-pooled features over the sum of their squares.",
        better="higher",
    ): lambda moments: rank.participation_ratio(moments.centred()),
    Metric(
        name="alpha-ReQ",
        about="Exponent of the power law that the eigenvalues of the covariance of mean-pooled features follow; larger "
        "means fewer directions, and near 1 is where features transfer best (NeurIPS 2022).",
    ): lambda moments: rank.alpha_req(moments.centred()),
}
"""of the moments of mean-pooled features: exact however many batches they came in"""

POINTS: dict[Metric, OfPoints] = {
    Metric(
        name="intrinsic dimension",
        about="TwoNN (Facco et al., 2017) of the mean-pooled features of at most a thousand clips: how many numbers it "
        "takes to say where features are near each of them, on a curved surface too, from the distances to the two "
        "nearest neighbours.",
    ): lambda x_vd: Interval(intrinsic_dimension(x_vd)),
}
"""of mean-pooled features `[V, D]`, which are kept; ValueError where not defined"""

VIEWS: dict[Metric, OfViews] = {
    Metric(
        name="LiDAR",
        about="Exponential of the entropy of the eigenvalues of the scatter of mean-pooled features between clips, "
        "whitened by that between augmented views of one clip (arXiv 2312.04000), without the bias of few views: how "
        "many directions tell clips apart that crops, flips and colours leave alone.",
        better="higher",
    ): ViewMoments.lidar,
}
"""of the scatters of the mean-pooled features of views; left out where none are read"""

TOKENS: dict[Metric, OfTokens] = {
    Metric(
        name="token cosine",
        about="Mean cosine between the layer-normed tokens of the clips of a batch: 1 when all tokens are one vector.",
        better="lower",
    ): tokens.token_cosine,
    Metric(
        name="uniformity",
        about="Logarithm of the mean of exp(-2 d^2) over pairs of mean-pooled unit-length features at distance d, of "
        "the clips of a batch; 0 is collapse (Wang and Isola, arXiv 2005.10242).",
        better="lower",
    ): lambda x_bnd: tokens.uniformity(x_bnd.float().mean(1)),
}
"""of the tokens of each batch, averaged over batches, each weighted by its clips"""

STEPS: dict[Metric, OfSteps] = {
    Metric(
        name="displacement",
        about="Mean length of the change of a token from the depth before over its length there; the last depth "
        "comes with the encoder's final norm.",
    ): tokens.displacement,
}
"""of the tokens of each batch at the depth before and at this one, averaged in the same way"""

_REACH = (
    " of keys from queries, weighted by attention (arXiv 2010.11929, figure 7; arXiv 2108.08810): the mean over the "
    "heads of the block, from the lowest to the highest head; each head is a dot."
)
ATTENTION: dict[Metric, Distance] = {
    Metric(
        name="attention distance in pixels",
        about="Mean distance within the frame, between centres of patches in pixels of the clip," + _REACH,
    ): lambda offset_qn3: offset_qn3[..., 1:].norm(dim=-1),
    Metric(
        name="attention distance in frames",
        about="Mean distance in time, between patches in frames of the clip," + _REACH,
    ): lambda offset_qn3: offset_qn3[..., 0].abs(),
}
"""of how far keys are from queries in frames, rows and columns `[Q, N, 3]`; averaged by head"""

STEP_CKA = Metric(
    name="CKA to the depth before",
    about="Unbiased linear CKA of the mean-pooled features of this depth and of the one before, over minibatches; near "
    "1 a block changes little.",
)
"""of the map of unbiased CKA"""

LABELLED: dict[Metric, tuple[tuple[Form, ...], OfLabelled]] = {
    Metric(
        name="linear probe",
        about="Accuracy of logistic regression on standardised mean-pooled features; every video is predicted by a fit "
        "to the other three quarters of the groups, and the penalty is the one with the least log loss.",
        better="higher",
        percent=True,
    ): ((MEAN,), partial(linear_probe, form=MEAN)),
    Metric(
        name="probe over time",
        about="The same on the means and deviations over places of the first four coefficients of a cosine transform "
        "over time of the tokens: what changes, and in which order, is lost in a mean.",
        better="higher",
        percent=True,
    ): ((OVER_TIME,), partial(linear_probe, form=OVER_TIME)),
    Metric(
        name="OccDrop",
        about="Share of the accuracy of the linear probe that is lost when it is fitted to and tested on clips of "
        "which one patch is seen, an eighth of the frame high and wide, at a random place that is the same in all "
        "frames, and the rest is black (arXiv 2601.09040); 0 where one patch tells all.",
        percent=True,
    ): ((MEAN, ONE_PATCH), occlusion_drop),
    Metric(
        name="retrieval mAP",
        about="Mean average precision of the videos of the same class when all others are ranked by the cosine of "
        "mean-pooled features.",
        better="higher",
        percent=True,
    ): ((MEAN,), retrieval),
    Metric(
        name="retrieval top-1",
        about="How often the nearest video by that cosine is of the same class.",
        better="higher",
        percent=True,
    ): ((MEAN,), nearest_is_right),
}
"""of videos that have a class; left out where one of the forms that it needs is not there"""
