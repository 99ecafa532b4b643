"""Readouts that are computed: against scikit-learn, with groups, unknown targets, and what cannot be computed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerlock.evaluation.solved import PENALTIES, RIDGES, Classes, Maps, Numbers, Solver
from layerlock.features.probe import INVERSE_PENALTIES, folds_of
from layerlock.model.readout import SolvedReadout, over_time

GENERATOR = torch.Generator()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR.manual_seed(seed))


def fitted(solver: Solver, x_bnw: torch.Tensor, target: torch.Tensor, fold_b: torch.Tensor, outputs: int) -> np.ndarray:
    """What a readout says of the inputs that it was solved on, given in three batches."""
    for rows in torch.arange(len(x_bnw)).chunk(3):
        solver.add(x_bnw[rows], target[rows], fold_b[rows])
    readout = SolvedReadout(x_bnw.shape[-1], times=1, outputs=outputs, pooled=False)
    solver.solve(readout)
    return readout.read(x_bnw).detach().double().numpy()


def as_good_as_one_of(found: np.ndarray, wanted: list[np.ndarray], atol: float) -> bool:
    return any(np.allclose(found, one, atol=atol) for one in wanted)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_scikit_learns_logistic_regression_at_one_of_the_penalties(classes: int) -> None:
    label_v = torch.arange(90) % classes
    x = noise(90, 1, 6) * 3 + 1
    x[:, 0, 0] += 5.0 * label_v
    found = fitted(Classes(classes), x, label_v, torch.arange(90) % 4, classes)[:, 0]
    x_vw = x[:, 0].double().numpy()
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000, tol=1e-6)) for c in INVERSE_PENALTIES
    ]
    shares = [model.fit(x_vw, label_v.numpy()).predict_proba(x_vw) for model in models]
    assert as_good_as_one_of(np.exp(found) / np.exp(found).sum(1, keepdims=True), shares, 1e-2)
    assert (found.argmax(1) == label_v.numpy()).mean() > 1.3 / classes


def test_a_class_without_training_videos_is_never_said_and_unknown_ones_do_not_count() -> None:
    label_v = torch.arange(60) % 2 * 2  # classes 0 and 2 of 4
    x = noise(60, 1, 5)
    x[:, 0, 0] += 3.0 * label_v
    x[::7] = torch.nan
    label_v[1::7] = -1
    found = fitted(Classes(4), x, label_v, torch.zeros(60, dtype=torch.int64), 4)[:, 0]
    usable = (label_v >= 0).numpy() & np.isfinite(found).all(1)
    assert usable.sum() == 60 - 9 - 9
    said = found[usable].argmax(1)
    assert set(said) == {0, 2}
    assert (said == label_v.numpy()[usable]).mean() > 0.8


def test_numbers_are_scikit_learns_ridge_at_one_of_the_penalties() -> None:
    x, y = noise(50, 1, 24) * 3 + 1, noise(50, seed=1)
    y = 300 + 7 * (x[:, 0, 0] - 2 * x[:, 0, 1] + y)
    found = fitted(Numbers(300.0, 7.0), x, y, torch.arange(50) % 4, 1)[:, 0, 0]
    models = [make_pipeline(StandardScaler(), Ridge(penalty)) for penalty in PENALTIES]
    x_vw, wanted = x[:, 0].double().numpy(), (y.double().numpy() - 300) / 7
    assert as_good_as_one_of(found, [model.fit(x_vw, wanted).predict(x_vw) for model in models], 1e-4)


def test_maps_are_ridge_regressions_of_patches_whose_unknown_pixels_are_the_mean_of_the_known() -> None:
    x, depth = noise(40, 3, 6), noise(40, 3, 4, seed=1).abs() + 1
    depth[..., 0] += 0.3 * (x[..., 0] - x[..., 0].min())
    depth[:5, 0, 1] = 0
    depth[7, 2] = 0
    found = fitted(Maps(), x, depth, torch.arange(40) % 4, 4)
    filled = depth.clone()
    filled[:5, 0, 1] = depth[:5, 0, [0, 2, 3]].mean(-1)
    keep = torch.ones(40, 3, dtype=torch.bool)
    keep[7, 2] = False
    x_nw, y_np = x[keep].double().numpy(), filled[keep].double().numpy()
    scale = x_nw.var(0).mean() * len(x_nw)
    wanted = [Ridge(ridge * scale).fit(x_nw, y_np).predict(x.flatten(0, 1).double().numpy()) for ridge in RIDGES]
    assert as_good_as_one_of(found.reshape(-1, 4), wanted, 1e-4)


def test_a_strong_penalty_is_chosen_where_nothing_can_be_learned_and_a_group_is_on_one_side() -> None:
    """Inputs that tell the group alone: by clip they seem to tell the class, by group they tell nothing."""
    group_v = torch.arange(120) // 6
    label_v = noise(20, seed=3).gt(0).long()[group_v]
    x = torch.nn.functional.one_hot(group_v, 20).float()[:, None] + 0.01 * noise(120, 1, 20)
    by_group = fitted(Classes(2), x, label_v, folds_of(group_v), 2)
    by_clip = fitted(Classes(2), x, label_v, folds_of(torch.arange(120)), 2)
    assert np.ptp(by_group[..., 1] - by_group[..., 0]) < 0.1 * np.ptp(by_clip[..., 1] - by_clip[..., 0])


def test_folds_keep_groups_together_and_are_of_the_videos_that_are_used() -> None:
    assert folds_of(torch.tensor([7, 7, 3, 9, 9, 1, 2])).tolist() == [3, 3, 2, 0, 0, 0, 1]
    assert folds_of(torch.tensor([5, 5])).tolist() == [0, 0]
    used = torch.tensor([True, False, True, False, True, False, False])
    assert folds_of(torch.tensor([7, 7, 3, 9, 9, 1, 2]), used_v=used).tolist() == [1, -1, 0, -1, 2, -1, -1]


@pytest.mark.parametrize("classes", [2, 4, 5, 8])
def test_no_fold_has_all_groups_of_a_class_in_whatever_order_videos_come(classes: int) -> None:
    label_v, group_v = torch.arange(12 * classes) % classes, torch.arange(12 * classes)
    for order_v in (group_v, label_v.argsort(stable=True), noise(12 * classes).argsort()):
        fold_v = folds_of(group_v, label_v[order_v])
        count_cf = torch.zeros(classes, 4).index_put((label_v[order_v], fold_v), torch.ones(()), accumulate=True)
        assert (count_cf == 3).all()
    sorted_v = label_v.sort().values
    assert folds_of(group_v, sorted_v).equal(folds_of(group_v)), "the order of class folders"


@pytest.mark.parametrize(
    ("solver", "target", "message"),
    [
        (Classes(3), torch.tensor([-1, 1, -1]), "fewer than two clips"),
        (Classes(3), torch.tensor([1, 1, 1]), "all clips that could be used are of one class"),
        (Numbers(0.0, 1.0), torch.tensor([torch.nan, torch.nan, 1.0]), "fewer than two clips"),
        (Maps(), torch.zeros(3, 2, 4), "no clip could be used"),
    ],
)
def test_what_cannot_be_computed_is_said(solver: Solver, target: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(solver, noise(3, 2 if isinstance(solver, Maps) else 1, 4), target, torch.zeros(3).long(), 4)


@pytest.mark.parametrize("times", [2, 3, 4, 6])
@pytest.mark.parametrize("appearance", [True, False])
def test_tokens_are_pooled_by_what_scipys_cosine_transform_over_time_is_at_every_place(
    times: int, appearance: bool
) -> None:
    x = noise(2, 4 * times, 5)
    waves = scipy.fft.dct(x.double().numpy().reshape(2, times, 4, 5), axis=1, norm="ortho")[:, :4]
    waves = waves if appearance else waves[:, 1:]
    wanted = np.stack([waves.mean(2), waves.std(2)], 2).reshape(2, -1)
    np.testing.assert_allclose(over_time(x, times, appearance=appearance).numpy(), wanted, atol=1e-6)


def test_without_appearance_what_stays_the_same_is_not_seen() -> None:
    x, constant = noise(2, 12, 5), noise(2, 1, 4, 5, seed=1).expand(2, 3, 4, 5).flatten(1, 2)
    found = over_time(x + constant, 3, appearance=False).view(2, 2, 2, 5)
    torch.testing.assert_close(found, over_time(x, 3, appearance=False).view(2, 2, 2, 5))
    assert not over_time(constant, 3, appearance=False).any()
    readout = SolvedReadout(5, times=3, outputs=2, pooled=True, appearance=False)
    torch.testing.assert_close(readout.read(x + constant), readout.read(x))
