"""A linear probe that is solved: logistic regression of classes, by scikit-learn, cross-validated in groups.

Readouts of an evaluation, the analysis by depth and the figures of a run that is watched share it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from layerlock.errors import LayerlockError

FOLDS = 4
"""parts of the training videos, of which each is held out once"""
INVERSE_PENALTIES = tuple(10.0**power for power in range(-4, 1))
"""of logistic regression; of these one is chosen by the log loss of what is held out"""
ABSENT = -100.0
"""logit of a class that no training video has"""


def check_solvable(what: str) -> None:
    """LayerlockError where scikit-learn is missing, which `what` needs."""
    if importlib.util.find_spec("sklearn") is None:
        raise LayerlockError(f"{what} needs scikit-learn (pip install 'layerlock[evaluate]')")


def folds_of(group_v: Tensor, label_v: Tensor | None = None, used_v: Tensor | None = None) -> Tensor:
    """The part of each video, int64 `[V]`: groups in the order of their numbers, dealt out one by one, class by class
    where there are class numbers `label_v`, so that no part has all of a class with several groups; -1 where `used_v`,
    bool `[V]`, says that a video is not used.
    """
    used_v = torch.ones_like(group_v, dtype=torch.bool) if used_v is None else used_v
    label_v = torch.zeros_like(group_v) if label_v is None else label_v
    number_v = group_v[used_v].unique(return_inverse=True)[1]
    groups = int(number_v.max()) + 1
    # of a group with several classes the lowest
    label_g = label_v.new_zeros(groups).scatter_reduce(0, number_v, label_v[used_v], "amin", include_self=False)
    place_g = label_g.argsort(stable=True).argsort()
    return torch.full_like(group_v, -1).masked_scatter(used_v, place_g[number_v] % min(FOLDS, groups))


def probe_hits(x_vd: Tensor, label_v: Tensor, group_v: Tensor) -> Tensor:
    """Whether logistic regression tells the class of each video, 0 or 1 `[V]`, from a fit to other groups; of the
    penalties it is the one with the least log loss.

    Features are standardised by the videos of each fit. ValueError where there are fewer than two groups or classes.
    """
    fold_v, classes = folds_of(group_v, label_v), int(label_v.max()) + 1
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


class Logistic:
    """Regressions of the same clips at several penalties, each fit beginning at the one before; `side_by_side` with
    others.
    """

    def __init__(self, x_vw: np.ndarray, label_v: np.ndarray, classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        # in float32, which features have: solved in half the time of float64
        self.x_vw, self.label_v, self.classes = x_vw.astype(np.float32), label_v, classes
        self.fit = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)

    def at(self, inverse_penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights `[W, C]` and bias `[C]`."""
        fit = self.fit.set_params(C=inverse_penalty).fit(self.x_vw, self.label_v)
        weight_wc, bias_c = np.zeros((self.x_vw.shape[1], self.classes)), np.full(self.classes, ABSENT)
        if len(fit.classes_) == 2:  # one row, for the second against the first
            weight_wc[:, fit.classes_[1]] = fit.coef_[0]
            bias_c[fit.classes_] = (0.0, fit.intercept_[0])
        else:
            weight_wc[:, fit.classes_] = fit.coef_.T
            bias_c[fit.classes_] = fit.intercept_
        return weight_wc, bias_c

    def logits(self, inverse_penalty: float, x_vw: np.ndarray) -> np.ndarray:
        """Of other clips, `[V, C]`."""
        weight_wc, bias_c = self.at(inverse_penalty)
        return x_vw @ weight_wc + bias_c


@contextmanager
def side_by_side() -> Iterator[Callable[[Sequence[tuple[Logistic, np.ndarray]], float], list[np.ndarray]]]:
    """The logits of each of several regressions for other clips, at one penalty, as many at a time as torch has
    threads, each on one: their products are too narrow to be divided, and have the same bits on any number of threads.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    threads = min(FOLDS, torch.get_num_threads())
    with ThreadPoolExecutor(threads) as pool, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty that takes long is not the best one
        warnings.filterwarnings("ignore", "The number of unique classes")  # few videos of many classes
        yield lambda fits, inverse_penalty: list(pool.map(lambda fit: fit[0].logits(inverse_penalty, fit[1]), fits))
