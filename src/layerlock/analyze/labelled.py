"""What of the labels the features of one depth hold: a linear probe, and retrieval."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.evaluation.solved import INVERSE_PENALTIES, Logistic, folds_of, side_by_side
from layerlock.features.neighbours import Retrieval, leave_one_out

UNKNOWN = Interval(math.nan)


def linear_probe(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Interval:
    """Accuracy of logistic regression (scikit-learn's), each video predicted by a fit to other groups.

    ValueError where there are fewer than two groups or classes.
    """
    return bootstrap(_probe_hits(x_vd, label_v, group_v), group_v)


def occlusion_drop(x_vd: Tensor, one_patch_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Interval:
    """OccDrop (arXiv 2601.09040): the share of the accuracy of `linear_probe` that is lost, at most 1, when it is of
    features of clips of which one patch is seen in place of those of whole clips.

    ValueError as there, and where the probe of whole clips is never right.
    """
    hit_v = _probe_hits(x_vd, label_v, group_v)
    if not hit_v.any():
        raise ValueError("the probe of whole clips is never right")
    return bootstrap(hit_v - _probe_hits(one_patch_vd, label_v, group_v), group_v, weight_v=hit_v)


def _probe_hits(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Tensor:
    """Whether logistic regression (scikit-learn's) is right about each video by a fit to other groups, 0 or 1 `[V]`.

    Features are standardised by the videos of each fit.
    """
    fold_v, classes = folds_of(group_v), int(label_v.max()) + 1
    if len(fold_v.unique()) < 2 or len(label_v.unique()) < 2:
        raise ValueError("a probe needs two classes and two groups of videos")
    x_vd, folds = x_vd.double(), []
    for fold in fold_v.unique():
        fitted = fold_v != fold
        if len(label_v[fitted].unique()) < 2:
            raise ValueError("all videos that a probe would be fitted to are of one class")
        mean_d, deviation_d = x_vd[fitted].mean(0), x_vd[fitted].std(0, correction=0)
        deviation_d = torch.where(deviation_d > 1e-9 * (1 + mean_d.abs()), deviation_d, torch.inf)
        scaled_vd = ((x_vd - mean_d) / deviation_d).numpy()
        fit = Logistic(scaled_vd[fitted], label_v[fitted].numpy(), classes)
        folds.append((fit, scaled_vd[~fitted], ~fitted))
    hit_v, least = torch.zeros(len(label_v)), math.inf
    with side_by_side() as logits_of:
        for inverse_penalty in INVERSE_PENALTIES:
            logit_vc = torch.zeros(len(label_v), classes, dtype=torch.float64)
            found = logits_of([(fit, x) for fit, x, _ in folds], inverse_penalty)
            for logit_hc, (*_, held_out) in zip(found, folds, strict=True):
                logit_vc[held_out] = torch.from_numpy(logit_hc)
            loss = float(torch.nn.functional.cross_entropy(logit_vc, label_v, reduction="none").clamp(max=20).mean())
            if loss > least:
                break
            hit_v, least = (logit_vc.argmax(1) == label_v).float(), loss
    return hit_v


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
