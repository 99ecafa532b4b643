"""Figures that tell whether a run is healthy: weight norms by layer, and whether features or targets collapse."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from layerlock import exchange
from layerlock.learn.learner import Learner, StepFigures
from layerlock.measures import rank
from layerlock.measures.tokens import token_cosine

ROWS = 4096
"""At most so many tokens enter the collapse figures of one step."""


def effective_rank(features: Tensor) -> float:
    """That of the first tokens of `[..., D]`, in [1, D]; 1 where they are all the same."""
    x = features.float().flatten(0, -2)[:ROWS]
    x = x - x.mean(0)
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    found = rank.effective_rank(torch.linalg.eigvalsh(gram).clamp(min=0))
    return 1.0 if math.isnan(found) else found


def weight_norms(learner: Learner) -> list[float]:
    """L2 norms of the weights of the patch projection and of every block, in depth order.

    When those of the first few stop rising, freezing can start (LayerLock section 3.4).
    """
    parts: list[nn.Module] = [learner.vit.embed, *learner.vit.blocks]
    norms = [torch.nn.utils.get_total_norm(p.detach().float() for p in part.parameters()) for part in parts]
    return torch.stack(norms).tolist()


@torch.no_grad()
def not_finite(learner: Learner) -> str:
    """The name of a parameter with values that are not finite, of the backbone, decoders, heads or a teacher; empty
    where there is none. Waits for the device once where all is well.
    """
    named = dict(learner.named_parameters())
    if bool(torch.stack([value.isfinite().all() for value in named.values()]).all()):
        return ""
    return next(name for name, value in named.items() if not value.isfinite().all())


def of_the_job(step: StepFigures) -> StepFigures:
    """A watched step's targets and first features of all processes, so that figures of them are of the whole batch."""
    if step.features_nd is None:
        return step
    exchange.average(list(step.moments.values()))
    return replace(step, features_nd=exchange.first_rows(step.features_nd.flatten(0, -2), ROWS))


class CollapseMonitor:
    """Remembers the best of each figure and warns once when it turns.

    Judged are the effective rank of features, how far apart tokens are (1 - cosine), and each target's variance: a
    figure has turned when it is under a share of its best, or so low that nothing can be left. The rank of healthy
    features can be as low as 2 on real footage, whose brightness outweighs all else. The first tenth of a run is not
    judged: a model that still learns the mean of its target has features of low rank, and leaves them by itself.
    """

    SETTLED = 0.1
    RANK_SHARE, RANK_FLOOR = 0.2, 1.2
    SPREAD_SHARE, SPREAD_FLOOR = 0.05, 0.01
    VARIANCE_SHARE = 0.02

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = {"best": {}, "turned": []} | (state or {})

    def figures(self, step: StepFigures) -> dict[str, Any]:
        """The collapse figures of a watched step, and how much of each target it explained."""
        if step.features_nd is None:
            return {}
        variance = {name: float(value) for name, value in step.target_variance.items()}
        return {
            "effective_rank": effective_rank(step.features_nd),
            "token_cosine": token_cosine(step.features_nd.flatten(0, -2)[:ROWS]),
            "target_variance": variance,
            "explained": {name: float(value) for name, value in step.explained.items()},
        }

    def warnings(self, figures: dict[str, Any], done: float) -> list[str]:
        """What has turned since the last call, a line each, after a share `done` of the run.

        A figure that recovers can turn again.
        """
        if "token_cosine" not in figures or done < self.SETTLED:
            return []
        spread = 1 - figures["token_cosine"]
        turned = [
            self._turned("effective rank of features", figures["effective_rank"], self.RANK_SHARE, self.RANK_FLOOR),
            self._turned("distance between feature tokens (1 - cosine)", spread, self.SPREAD_SHARE, self.SPREAD_FLOOR),
        ]
        for name, value in figures["target_variance"].items():
            turned.append(self._turned(f"variance of target {name}", value, self.VARIANCE_SHARE, 0.0))
        return [line for line in turned if line]

    def _turned(self, name: str, value: float, share: float, floor: float) -> str | None:
        """Words for a figure that has just turned; one that was bad before, or is well, has none."""
        best = self.state["best"][name] = max(value, self.state["best"].get(name, value))
        turned = self.state["turned"]
        bad, before = not value >= max(share * best, floor), name in turned
        if bad and not before:
            turned.append(name)
            return f"possible collapse: {name} is {value:.4g}, its best was {best:.4g}"
        if before and not bad:
            turned.remove(name)
        return None
