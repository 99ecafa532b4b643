"""Muon beside AdamW: `quality.py` with one more optimizer, `--optim.name muon`, and what its update costs.

    python benchmarks/muon.py mae-nano "mae-nano --optim.name muon" --data ... --clips 32000    # as quality.py
    python benchmarks/muon.py --cost

Matrices of 64 rows and columns or more get the orthogonalised momentum (five Newton-Schulz steps, all matrices of one
shape together, queries, keys and values apart), all else AdamW. In float32: `torch.optim.Muon` orthogonalises in
bfloat16, which a CPU without AMX multiplies many times slower. Weights change by 0.2 sqrt(longer side) times the rate
(Moonlight, arXiv 2502.16982), so that the rates of AdamW serve.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import quality
import torch
from torch import Tensor

import layerlock
from layerlock.process import keep_freed_memory
from layerlock.train.loop import build_learner
from layerlock.train.optimizer import OPTIMIZERS, build_optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STEPS, MOMENTUM, SMALLEST = 5, 0.95, 64


def orthogonalised(g_bmn: Tensor) -> Tensor:
    """Each matrix with singular values near 1 in place of its own."""
    tall = g_bmn.shape[1] > g_bmn.shape[2]
    x_bmn = g_bmn.mT if tall else g_bmn
    x_bmn = x_bmn / (x_bmn.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(STEPS):
        gram_bmm = x_bmn @ x_bmn.mT
        x_bmn = a * x_bmn + (b * gram_bmm + c * (gram_bmm @ gram_bmm)) @ x_bmn
    return x_bmn.mT if tall else x_bmn


class Muon(torch.optim.Optimizer):
    """Muon for large matrices, AdamW for all else."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            live = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices: defaultdict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in live:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if group["decays"] and parameter.ndim == 2 and min(parameter.shape) >= SMALLEST:
                    matrices[tuple(parameter.shape)].append(parameter)
                else:
                    self._adamw(parameter, group["lr"], group["betas"])
            for same in matrices.values():
                self._muon(same, group["lr"])

    def _muon(self, same: list[Tensor], lr: float) -> None:
        rows, columns = same[0].shape
        parts = 3 if rows == 3 * columns else 1
        update_bmn = torch.stack([self._momentum(parameter) for parameter in same]).unflatten(1, (parts, -1))
        new_bmn = orthogonalised(update_bmn.flatten(0, 1)).unflatten(0, (-1, parts)).flatten(1, 2)
        scale = 0.2 * max(rows // parts, columns) ** 0.5
        torch._foreach_add_(same, list(new_bmn.unbind()), alpha=-lr * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov's."""
        assert parameter.grad is not None
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)

    def _adamw(self, parameter: Tensor, lr: float, betas: tuple[float, float]) -> None:
        assert parameter.grad is not None
        state, (first, second) = self.state[parameter], betas
        if not state:
            state.update(step=torch.tensor(0.0), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - first)
        state["square"].lerp_(parameter.grad.square(), 1 - second)
        steps = float(state["step"])
        deviation = (state["square"] / (1 - second**steps)).sqrt() + 1e-8
        parameter.addcdiv_(state["mean"] / (1 - first**steps), deviation, value=-lr)


def cost(batches: Iterable[int] = (32, 64, 128), rounds: int = 10) -> None:
    """Milliseconds of CPU time of a step of `mae-nano`, and of the update in it, on one thread."""
    device = torch.device("cpu")
    torch.set_num_threads(1)
    keep_freed_memory(device)
    config = layerlock.recipe("mae-nano", data="synthetic")
    for batch in batches:
        for name in ("adamw", "muon"):
            optim = replace(config.optim, name=name)
            stage = config.plan.build(100, config.model.depth, config.model.depth).stage(0, ())
            learner = build_learner(config, device, stage)
            optimizer, seconds = build_optimizer(learner, optim), [0.0, 0.0]
            clips = torch.randint(0, 256, (batch, 16, 3, 32, 32), dtype=torch.uint8)
            for number in range(-2, rounds):
                begun = time.process_time()
                learner.step(clips, torch.arange(batch))
                between = time.process_time()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if number >= 0:
                    seconds[0] += between - begun
                    seconds[1] += time.process_time() - between
            passes, update = (1_000 * taken / rounds for taken in seconds)
            print(f"batch {batch}, {name}: forward and backward {passes:.0f} ms, update {update:.0f} ms")


OPTIMIZERS["muon"] = lambda groups, optim: Muon(groups, optim.lr, optim.betas)

if __name__ == "__main__":
    if sys.argv[1:] == ["--cost"]:
        cost()
    else:
        quality.main()
