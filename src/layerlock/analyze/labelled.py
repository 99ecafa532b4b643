"""What of the labels the features of one depth hold: a linear probe, and retrieval."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import DegenerateDataWarning
from torch import Tensor

from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.features.neighbours import Retrieval, leave_one_out
from layerlock.features.probe import probe_hits


def linear_probe(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Interval:
    """Accuracy of logistic regression, each video predicted by a fit to other groups; ValueError as `probe_hits`."""
    return bootstrap(probe_hits(x_vd, label_v, group_v), group_v)


def occlusion_drop(hit_v: Tensor, one_patch_hit_v: Tensor, group_v: Tensor) -> Interval:
    """OccDrop (arXiv 2601.09040): the share of a probe's accuracy that is lost, at most 1, from `probe_hits` of
    features of whole clips and of those of clips of which one patch is seen.

    ValueError where the probe of whole clips is never right.
    """
    if not hit_v.any():
        raise ValueError("the probe of whole clips is never right")
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # draws without a hit: there is no interval then
        return bootstrap(hit_v - one_patch_hit_v, group_v, weight_v=hit_v)


def retrieval(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Interval:
    """Mean average precision of videos of the same class among those of other groups, by cosine.

    ValueError where no class is in two groups.
    """
    found = _ranked(x_vd, label_v, group_v)
    return bootstrap(found.average_precision_q, group_v[found.query_q])


def nearest_is_right(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Interval:
    """How often the nearest video of another group is of the same class; ValueError as above."""
    found = _ranked(x_vd, label_v, group_v)
    return bootstrap((found.first_q == 0).double(), group_v[found.query_q])


def _ranked(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Retrieval:
    if not np.ptp(x_vd.double().numpy(), axis=0).any():
        raise ValueError("all features are the same")
    return leave_one_out(x_vd, label_v, group_v)
