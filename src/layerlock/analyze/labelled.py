"""What of the labels the features of one depth hold: a linear probe, and retrieval."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.stats import DegenerateDataWarning
from torch import Tensor

from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.features.neighbours import Retrieval, leave_one_out
from layerlock.features.probe import probe_hits

Form = Literal["mean", "over time", "one patch"]
MEAN: Form = "mean"
OVER_TIME: Form = "over time"
ONE_PATCH: Form = "one patch"
"""the mean, of clips of which one patch is seen (`analyze/occlusion.py`)"""


class Labelled:
    """Videos that have a class: their features at one depth in some forms `[V, W]`, class numbers and groups `[V]`."""

    def __init__(self, features: Mapping[Form, Tensor], label_v: Tensor, group_v: Tensor) -> None:
        self.features, self.label_v, self.group_v = features, label_v, group_v
        self._hits: dict[Form, Tensor] = {}

    def hits(self, form: Form) -> Tensor:
        """`probe_hits` of a form, which is fitted once for all figures that ask for it."""
        if form not in self._hits:
            self._hits[form] = probe_hits(self.features[form], self.label_v, self.group_v)
        return self._hits[form]


def linear_probe(videos: Labelled, form: Form) -> Interval:
    """Accuracy of logistic regression, each video predicted by a fit to other groups; ValueError as `probe_hits`."""
    return bootstrap(videos.hits(form), videos.group_v)


def occlusion_drop(videos: Labelled) -> Interval:
    """OccDrop (arXiv 2601.09040): the share of a probe's accuracy on whole clips that is lost, at most 1, when it is
    fitted to and tested on clips of which one patch is seen.

    ValueError as `probe_hits`, and where the probe of whole clips is never right.
    """
    hit_v, one_patch_hit_v = videos.hits(MEAN), videos.hits(ONE_PATCH)
    if not hit_v.any():
        raise ValueError("the probe of whole clips is never right")
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # draws without a hit: there is no interval then
        return bootstrap(hit_v - one_patch_hit_v, videos.group_v, weight_v=hit_v)


def retrieval(videos: Labelled) -> Interval:
    """Mean average precision of videos of the same class among those of other groups, by cosine.

    ValueError where no class is in two groups.
    """
    found = _ranked(videos)
    return bootstrap(found.average_precision_q, videos.group_v[found.query_q])


def nearest_is_right(videos: Labelled) -> Interval:
    """How often the nearest video of another group is of the same class; ValueError as above."""
    found = _ranked(videos)
    return bootstrap((found.first_q == 0).double(), videos.group_v[found.query_q])


def _ranked(videos: Labelled) -> Retrieval:
    x_vd = videos.features[MEAN]
    if not np.ptp(x_vd.double().numpy(), axis=0).any():
        raise ValueError("all features are the same")
    return leave_one_out(x_vd, videos.label_v, videos.group_v)
