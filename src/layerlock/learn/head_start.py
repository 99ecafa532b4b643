"""New heads begin where a regression puts them, and targets get their scale, both from the clips after a switch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock.learn.learner import Learner, head_name
from layerlock.learn.plan import Tap
from layerlock.learn.sums import Sums
from layerlock.model.vit import Dense

TOKENS = 32
"""for each input of a head, so that what it explains is the same of tokens that it was not fitted on"""
HELD_OUT = 4
"""one batch in so many is held out of a first fit, to tell what it explains"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a head began: the share of its target's variance that a fit explains on held-out tokens (nan: there are none,
    or they are all the same), and on how many tokens it was made; or why it kept the weights that it was drawn with.
    """

    explained: float
    tokens: int
    problem: str = ""


@torch.no_grad()
def start_heads(learner: Learner, batches: Iterable[tuple[Tensor, Tensor]], *, solve: bool) -> dict[str, Start]:
    """Measures the scale of new targets that are standardised, and where `solve` gives new heads the weights of a ridge
    regression from decoded tokens to target. Returns how each solved head began, by the name of its head.

    `batches` are (clips, sample indices); the first masks of each clip are used. A function of these alone.
    """
    wanted = _wanted(learner, solve)
    learner.new_heads = set()
    sums: dict[str, list[Sums]] = {}
    for number, (video_btchw, index_b) in enumerate(batches if wanted else ()):
        for part in learner.masking.parts(index_b):
            for group in learner.groups(video_btchw[part], index_b[part]):
                for prediction in group.predictions:
                    name = head_name(prediction.tap)
                    if name in wanted:
                        x_nw, y_np = prediction.decoded.flatten(0, 1), prediction.target.flatten(0, 1)
                        both = sums.setdefault(name, [Sums(x_nw.shape[1], y_np.shape[1], x_nw.device) for _ in "ab"])
                        both[(number + 1) % HELD_OUT == 0].add(x_nw, y_np)
    for both in sums.values():
        for each in both:
            each.add_up()
    begun = {name: _begin(learner, name, fitted, held_out, solve) for name, (fitted, held_out) in sums.items()}
    return {name: start for name, start in begun.items() if start is not None}


def batches_needed(learner: Learner, batch: int, *, solve: bool) -> int:
    """How many batches of so many clips `start_heads` needs; 0 where nothing is to be measured or solved."""
    counts = learner.masking.counts(learner.vit.grid)[0]
    needed = 0
    for name, tap in _wanted(learner, solve).items():
        positions = counts.predicted if tap.masked else learner.vit.tokens * tap.fraction
        rows = batch * max(1, round(positions))
        needed = max(needed, HELD_OUT, math.ceil(TOKENS * _head(learner, name).in_features / rows))
    return needed


def _wanted(learner: Learner, solve: bool) -> dict[str, Tap]:
    """The new heads that are solved, or whose targets are measured, and their losses."""
    new = {head_name(tap): tap for tap in learner.stage.taps if head_name(tap) in learner.new_heads}
    return {name: tap for name, tap in new.items() if solve or name in learner.scales}


def _head(learner: Learner, name: str) -> Dense:
    head = learner.heads[name]
    assert isinstance(head, Dense)
    return head


def _begin(learner: Learner, name: str, fitted: Sums, held_out: Sums, solve: bool) -> Start | None:
    """Sets the scale and the weights of one head."""
    whole = fitted.joined(held_out)
    mean_p, deviation_p = torch.zeros_like(whole.y_p), torch.ones_like(whole.y_p)
    if name in learner.scales:
        mean_p, deviation_p = whole.mean(), (whole.variance() + 1e-6 * whole.variance().mean() + 1e-12).sqrt()
        learner.scales[name].copy_(torch.stack([mean_p, deviation_p]))
    if not solve:
        return None
    try:
        fit = fitted.regression()
        varies = held_out.count > 0 and bool(held_out.variance().sum() > 1e-12 * held_out.yy_p.sum() / held_out.count)
        explained = held_out.explained(*fit, deviation_p) if varies else math.nan
        weight_wp, bias_p = whole.regression()
    except ValueError as error:
        return Start(explained=math.nan, tokens=whole.count, problem=str(error))
    head = _head(learner, name)
    head.weight.copy_((weight_wp / deviation_p).T)
    head.bias.copy_((bias_p - mean_p) / deviation_p)
    return Start(explained=explained, tokens=whole.count)
