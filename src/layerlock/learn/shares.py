"""A step whose batch is shared out over the cores of a CPU.

A small model's layers are too short to be divided among threads, which wait for each other at every one of them, and
longest where a core has other work too. Here each thread goes through the whole model with its share of the clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from layerlock.data import Batch
from layerlock.learn.learner import Learner, StepFigures
from layerlock.model.cores import full_rounds

MOST_BYTES = 2**28
"""of gradients, which each share has its own of; layers of larger models are long enough to be divided"""


class Gradients:
    """Those of one share, kept apart: threads that add to the same tensors would do so in any order."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.found: list[Tensor | None] = [None] * len(parameters)

    def add(self, loss: Tensor) -> None:
        """Adds those of a loss; its graph is gone then."""
        new = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        self.found = [_sum(pair) for pair in zip(self.found, new, strict=True)]


def shared_step(
    learner: Learner,
    batch: Batch,
    shown: Callable[[Batch], Tensor],
    *,
    scale: float = 1.0,
    weights: Mapping[str, float] | None = None,
) -> StepFigures | None:
    """What `learner.step` does with the clips that `shown` makes of a batch, and its losses; the same numbers up to
    rounding, and the same bits each time with the same number of threads.

    None, and nothing done, where all threads are better together: on a GPU, with compiled blocks, a large model or
    fewer clips than threads; and where patches are weighted by their motion, relative to that of all clips.
    """
    live = list(learner.live().values())
    shares = torch.get_num_threads()
    large = sum(parameter.nbytes for parameter in live) * shares > MOST_BYTES
    weighted = any(tap.motion_weight for tap in learner.stage.taps)
    if learner.compiled or large or weighted or live[0].device.type != "cpu":
        return None

    def step(share: Batch) -> tuple[StepFigures, Gradients]:
        part, gradients = len(share.index_b) / len(batch.index_b), Gradients(live)
        figures = learner.step(shown(share), share.index_b, scale=scale * part, weights=weights, backward=gradients.add)
        return replace(figures, losses={name: loss * part for name, loss in figures.losses.items()}), gradients

    bounds = [len(batch.index_b) * share // shares for share in range(shares + 1)]
    done = full_rounds(step, [batch.slice(begin, end) for begin, end in pairwise(bounds) if begin < end])
    if not done:
        return None
    for parameter, *found in zip(live, *(gradients.found for _, gradients in done), strict=True):
        parameter.grad = _sum([parameter.grad, *found])
    each = [figures.losses for figures, _ in done]
    return replace(done[0][0], losses={name: torch.stack([losses[name] for losses in each]).sum() for name in each[0]})


def _sum(gradients: Iterable[Tensor | None]) -> Tensor | None:
    """Of those that there are, in their order; a new tensor where there are several."""
    there = [gradient for gradient in gradients if gradient is not None]
    return sum(there[1:], there[0]) if there else None
