"""Probes and retrieval against scikit-learn."""

from __future__ import annotations

from threading import current_thread
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerlock.analyze import labelled
from layerlock.analyze.labelled import (
    MEAN,
    ONE_PATCH,
    Labelled,
    linear_probe,
    nearest_is_right,
    occlusion_drop,
    retrieval,
)
from layerlock.evaluation.intervals import Interval
from layerlock.features.probe import INVERSE_PENALTIES, Logistic, folds_of, probe_hits


def classes(videos: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that say something of three classes, with two videos a group."""
    draws = torch.Generator().manual_seed(seed)
    label_v = torch.arange(videos) // 2 % 3
    x_vd = torch.randn(videos, 5, generator=draws) + torch.eye(3, 5)[label_v] * 1.5
    return x_vd, label_v, torch.arange(videos) // 2


def probed(*of: torch.Tensor) -> Interval:
    x_vd, label_v, group_v = of
    return linear_probe(Labelled({MEAN: x_vd}, label_v, group_v), MEAN)


def test_a_probe_is_scikit_learns_at_the_penalty_with_the_least_loss() -> None:
    x_vd, label_v, group_v = classes()
    split = PredefinedSplit(folds_of(group_v, label_v).numpy())
    found = []
    for penalty in INVERSE_PENALTIES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300, tol=1e-6))
        share = cross_val_predict(model, x_vd.numpy(), label_v.numpy(), cv=split, method="predict_proba")
        loss = -np.log(share[np.arange(len(share)), label_v.numpy()]).mean()
        found.append((loss, (share.argmax(1) == label_v.numpy()).mean()))
    probe = probed(x_vd, label_v, group_v)
    assert probe.mean == pytest.approx(min(found)[1], abs=1.5 / len(label_v))
    assert probe.low < probe.mean < probe.high


def test_a_group_is_never_on_both_sides() -> None:
    """Labels that only the group tells, which features copy exactly, cannot be learned."""
    group_v = torch.arange(80) // 4
    label_v = torch.randint(2, (20,), generator=torch.Generator().manual_seed(0))[group_v]
    x_vd = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))[group_v]
    assert len(GroupKFold(4).split(x_vd, groups=group_v.numpy()).__next__()) == 2
    assert probed(x_vd, label_v, group_v).mean < 0.75
    assert probed(x_vd, label_v, torch.arange(80)).mean > 0.95


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_classes_that_come_in_turns_are_told_as_those_in_a_row_are(classes: int) -> None:
    label_v = torch.arange(48) % classes
    x_vd = torch.eye(classes)[label_v] + 0.05 * torch.randn(48, classes, generator=torch.Generator().manual_seed(0))
    assert probe_hits(x_vd, label_v, torch.arange(48)).all()


@pytest.mark.usefixtures("threads")
def test_a_probe_has_the_same_bits_on_as_many_threads_as_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    (x_vd, label_v, group_v), names, logits = classes(120), set(), Logistic.logits

    def spied(fit: Logistic, *arguments: Any) -> np.ndarray:
        names.add(current_thread().name)
        found.append(logits(fit, *arguments))
        return found[-1]

    monkeypatch.setattr(Logistic, "logits", spied)
    sums = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found: list[np.ndarray] = []
        names.clear()
        probe_hits(x_vd, label_v, group_v)
        assert 1 <= len(names) <= threads == torch.get_num_threads()
        sums.append(sorted(float(logit_vc.sum()) for logit_vc in found))
    assert sums[0] == sums[1]


def test_what_one_patch_loses_is_a_share_of_the_accuracy() -> None:
    x_vd, label_v, group_v = classes()
    worse_vd = x_vd + 2 * torch.randn(x_vd.shape, generator=torch.Generator().manual_seed(3))
    videos = Labelled({MEAN: x_vd, ONE_PATCH: worse_vd}, label_v, group_v)
    drop = occlusion_drop(videos)
    whole, patch = (float(probe_hits(x, label_v, group_v).double().mean()) for x in (x_vd, worse_vd))
    assert whole == linear_probe(videos, MEAN).mean
    assert 0 < drop.mean == pytest.approx((whole - patch) / whole)
    assert drop.low < drop.mean < drop.high
    assert occlusion_drop(Labelled({MEAN: x_vd, ONE_PATCH: x_vd}, label_v, group_v)).mean == 0


def test_a_probe_is_fitted_once_for_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    x_vd, label_v, group_v = classes()
    fitted = list[torch.Tensor]()

    def fit(x_vd: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        fitted.append(x_vd)
        return (x_vd[:, 0] > 0).float()

    monkeypatch.setattr(labelled, "probe_hits", fit)
    videos = Labelled({MEAN: x_vd, ONE_PATCH: -x_vd}, label_v, group_v)
    linear_probe(videos, MEAN)
    occlusion_drop(videos)
    assert [id(x) for x in fitted] == [id(x) for x in videos.features.values()]


def test_nothing_is_lost_where_nothing_was_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "probe_hits", lambda hit_v, *_: hit_v)
    one_hit_v, of = torch.eye(8)[0], (torch.zeros(8).long(), torch.arange(8))
    drop = occlusion_drop(Labelled({MEAN: one_hit_v, ONE_PATCH: one_hit_v.roll(1)}, *of))
    assert (drop.mean, drop.known) == (0, False)
    with pytest.raises(ValueError, match="never right"):
        occlusion_drop(Labelled({MEAN: torch.zeros(8), ONE_PATCH: torch.ones(8)}, *of))


def test_retrieval_is_scikit_learns_average_precision() -> None:
    x_vd, label_v, _ = classes(30)
    alone_v = torch.arange(30)
    unit = torch.nn.functional.normalize(x_vd, dim=1).numpy()
    precisions, nearest = [], []
    for row in range(30):
        others = np.arange(30) != row
        cosine = unit[others] @ unit[row]
        hit = label_v.numpy()[others] == int(label_v[row])
        precisions.append(average_precision_score(hit, cosine))
        nearest.append(hit[cosine.argmax()])
    videos = Labelled({MEAN: x_vd}, label_v, alone_v)
    assert retrieval(videos).mean == pytest.approx(np.mean(precisions), abs=1e-6)
    assert nearest_is_right(videos).mean == pytest.approx(np.mean(nearest))


@pytest.mark.parametrize("figure", [retrieval, nearest_is_right])
def test_of_features_that_are_all_the_same_nothing_is_retrieved(figure: object) -> None:
    _, label_v, group_v = classes()
    with pytest.raises(ValueError, match="all features are the same"):
        figure(Labelled({MEAN: torch.ones(60, 5)}, label_v, group_v))  # type: ignore[operator]


@pytest.mark.parametrize(("label_v", "group_v"), [(torch.zeros(9), torch.arange(9)), (torch.arange(9), torch.zeros(9))])
def test_a_probe_needs_two_classes_and_two_groups(label_v: torch.Tensor, group_v: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two classes and two groups"):
        probed(torch.randn(9, 3), label_v.long(), group_v.long())
