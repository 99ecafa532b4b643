"""Readouts that are computed and not trained: logistic regression of classes, ridge regression of numbers and maps.

How strongly each is regularised is chosen by cross-validation on the training split. Videos of a group are always on
the same side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from layerlock.features.probe import INVERSE_PENALTIES, Logistic, side_by_side
from layerlock.learn.sums import Sums
from layerlock.model.readout import SolvedReadout

PENALTIES = tuple(10.0**power for power in range(-2, 7))
"""of the ridge regression of numbers, by the squared error of what is held out"""
RIDGES = tuple(10.0**power for power in range(-5, 0))
"""of the ridge regression of maps, as shares of the mean variance of the inputs"""


class Solver(Protocol):
    """Takes in what a readout is computed from, then computes it."""

    def add(self, x_bnw: Tensor, target: Tensor, fold_b: Tensor) -> None:
        """Inputs of the readout `[B, N, W]`, targets, and the part that each clip is in, `[B]`, from 0 on; on the CPU.
        Clips whose inputs are not finite or whose target is unknown do not count.
        """

    def solve(self, readout: SolvedReadout) -> None:
        """Sets the weights of the readout. ValueError, in words, where they cannot be computed."""


class _Rows:
    """One input for each clip, all kept: some thousand numbers a clip at most."""

    def __init__(self) -> None:
        self.x, self.y, self.fold = list[Tensor](), list[Tensor](), list[Tensor]()

    def keep(self, x_b1w: Tensor, target_b: Tensor, fold_b: Tensor, known_b: Tensor) -> None:
        """The clips that count."""
        usable_b = known_b & x_b1w[:, 0].isfinite().all(1)
        self.x.append(x_b1w[usable_b, 0])
        self.y.append(target_b[usable_b])
        self.fold.append(fold_b[usable_b])

    def standardized(self) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor, list[tuple[np.ndarray, np.ndarray]]]:
        """Inputs with mean 0 and deviation 1, targets, that mean and deviation, and (fitted, held out) rows."""
        x_vw, y_v, fold_v = torch.cat(self.x).double(), torch.cat(self.y), torch.cat(self.fold)
        if len(y_v) < 2:
            raise ValueError("fewer than two clips could be used")
        mean_w, deviation_w = x_vw.mean(0), x_vw.std(0, correction=0)
        deviation_w = torch.where(deviation_w > 1e-9 * (1 + mean_w.abs()), deviation_w, 1.0)
        splits = [((fold_v != fold).numpy(), (fold_v == fold).numpy()) for fold in fold_v.unique().tolist()]
        splits = splits if len(splits) > 1 else []
        return ((x_vw - mean_w) / deviation_w).numpy(), y_v.numpy(), mean_w, deviation_w, splits


class Classes:
    """Multinomial logistic regression of `[B]` class numbers, by scikit-learn; -1 is unknown."""

    def __init__(self, classes: int) -> None:
        self.classes, self.rows = classes, _Rows()

    def add(self, x_bnw: Tensor, target: Tensor, fold_b: Tensor) -> None:
        """See `Solver`."""
        self.rows.keep(x_bnw, target, fold_b, target >= 0)

    def solve(self, readout: SolvedReadout) -> None:
        """See `Solver`."""
        x_vw, label_v, mean_w, deviation_w, splits = self.rows.standardized()
        if len(np.unique(label_v)) < 2:
            raise ValueError("all clips that could be used are of one class")
        told = [(fitted, held_out & np.isin(label_v, label_v[fitted])) for fitted, held_out in splits]
        folds = [  # a class that was not fitted says nothing of penalties
            (Logistic(x_vw[fitted], label_v[fitted], self.classes), x_vw[held_out], label_v[held_out])
            for fitted, held_out in told
            if held_out.any() and len(np.unique(label_v[fitted])) > 1
        ]
        inverse_penalty, least = INVERSE_PENALTIES[2], np.inf
        with side_by_side() as logits_of:
            for weaker in INVERSE_PENALTIES if folds else ():
                logits = logits_of([(fit, x) for fit, x, _ in folds], weaker)
                loss = sum(
                    _log_loss(logit_vc, held_out_v) for logit_vc, (*_, held_out_v) in zip(logits, folds, strict=True)
                )
                if loss > least:
                    break  # weaker still is worse still, and takes longest
                inverse_penalty, least = weaker, loss
            weight_wc, bias_c = Logistic(x_vw, label_v, self.classes).at(inverse_penalty)
        _set(readout, *_as_given(torch.from_numpy(weight_wc), torch.from_numpy(bias_c), mean_w, deviation_w))


def _log_loss(logit_vc: np.ndarray, label_v: np.ndarray) -> float:
    """Summed over clips."""
    logits, labels = torch.from_numpy(logit_vc), torch.from_numpy(label_v)
    return float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))


class Numbers:
    """Ridge regression of `[B]` numbers less `mean` and over `deviation`, by scikit-learn; NaN is unknown."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation, self.rows = mean, deviation, _Rows()

    def add(self, x_bnw: Tensor, target: Tensor, fold_b: Tensor) -> None:
        """See `Solver`."""
        self.rows.keep(x_bnw, (target.double() - self.mean) / self.deviation, fold_b, ~target.isnan())

    def solve(self, readout: SolvedReadout) -> None:
        """See `Solver`."""
        from sklearn.linear_model import RidgeCV

        x_vw, y_v, mean_w, deviation_w, splits = self.rows.standardized()
        rows = [(fitted.nonzero()[0], held_out.nonzero()[0]) for fitted, held_out in splits]
        fit = RidgeCV(PENALTIES, cv=rows or None, scoring="neg_mean_squared_error" if rows else None).fit(x_vw, y_v)
        weight_w1, bias_1 = torch.from_numpy(fit.coef_)[:, None], torch.as_tensor(fit.intercept_).reshape(1)
        _set(readout, *_as_given(weight_w1, bias_1, mean_w, deviation_w))


class Maps:
    """Ridge regression of each token's own patch of a map, `[B, N, P]` with 0 where nothing is known.

    From sums, so that memory does not grow with the clips. An unknown pixel of a patch counts as the mean of those that
    are known; a patch without any does not count.
    """

    def __init__(self) -> None:
        self.sums: dict[int, Sums] = {}

    def add(self, x_bnw: Tensor, target: Tensor, fold_b: Tensor) -> None:
        """See `Solver`."""
        known_bnp = target > 0
        mean_bn1 = target.sum(-1, keepdim=True) / known_bnp.sum(-1, keepdim=True)
        filled_bnp = torch.where(known_bnp, target, mean_bn1)
        usable_bn = known_bnp.any(-1) & x_bnw.isfinite().flatten(1).all(1)[:, None]
        for fold in fold_b.unique().tolist():
            rows_bn = usable_bn & (fold_b == fold)[:, None]
            sums = self.sums.setdefault(fold, Sums(x_bnw.shape[-1], target.shape[-1], x_bnw.device))
            sums.add(x_bnw[rows_bn], filled_bnp[rows_bn])

    def solve(self, readout: SolvedReadout) -> None:
        """See `Solver`."""
        parts = [sums for sums in self.sums.values() if sums.count]
        if not parts:
            raise ValueError("no clip could be used")
        explained = dict.fromkeys(RIDGES, 0.0)
        for held_out in parts if len(parts) > 1 else ():
            fitted = _joined([part for part in parts if part is not held_out])
            for ridge in RIDGES:
                explained[ridge] += held_out.explained(*fitted.regression(ridge)) * held_out.count
        ridge = max(RIDGES, key=lambda ridge: explained[ridge]) if len(parts) > 1 else RIDGES[2]
        weight_wp, bias_p = _joined(parts).regression(ridge)
        _set(readout, weight_wp, bias_p)


def _joined(parts: Sequence[Sums]) -> Sums:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.joined(part)
    return whole


def _as_given(weight_wo: Tensor, bias_o: Tensor, mean_w: Tensor, deviation_w: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias of standardised inputs, as those of the inputs as they are."""
    weight_wo = weight_wo / deviation_w[:, None]
    return weight_wo, bias_o - mean_w @ weight_wo


@torch.no_grad()
def _set(readout: SolvedReadout, weight_wo: Tensor, bias_o: Tensor) -> None:
    readout.out.weight.copy_(weight_wo.T)
    readout.out.bias.copy_(bias_o)
