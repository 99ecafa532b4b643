"""Learning rate, weight decay and the teacher's average as pure functions of (step, switch log)."""

from __future__ import annotations

import math
from bisect import bisect_right

from layerlock.config import OptimConfig
from layerlock.learn.plan import SwitchLog


def learning_rate(optim: OptimConfig, steps: int, step: int, log: SwitchLog) -> float:
    """Of update `step` (from 0) of `steps`: in each cycle a linear warm-up and a cosine to `end_lr`, and after each
    switch a mini warm-up.

    The mini warm-up scales what the cosine says, from `1/n` up to 1 over its n steps (LayerLock Table 6).
    """
    at, length = _in_cycle(optim.cycles, steps, step)
    warmup = round(optim.warmup * steps)
    if at < warmup:
        rate = optim.start_lr + (optim.lr - optim.start_lr) * (at + 1) / warmup
    else:
        progress = (at - warmup) / max(length - warmup, 1)
        rate = optim.end_lr + (optim.lr - optim.end_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    if log and optim.mini_warmup > 0:
        length = max(1, round(optim.mini_warmup * steps))
        rate *= min(1.0, (step - log[-1].step + 1) / length)
    return rate


def _in_cycle(cycles: int, steps: int, step: int) -> tuple[int, int]:
    """Updates since the cycle of `step` began, and its length; cycles begin where equal shares of a plan do."""
    begins = [round(cycle / cycles * steps) for cycle in range(cycles + 1)]
    cycle = bisect_right(begins, step, hi=cycles) - 1
    return step - begins[cycle], begins[cycle + 1] - begins[cycle]


def weight_decay(optim: OptimConfig, steps: int, step: int) -> float:
    """Of update `step` (from 0) of `steps`: from one value to the other along half a cosine (V-JEPA)."""
    if optim.end_weight_decay is None:
        return optim.weight_decay
    rise = 0.5 * (1 - math.cos(math.pi * step / max(steps - 1, 1)))
    return optim.weight_decay + (optim.end_weight_decay - optim.weight_decay) * rise


def ema(optim: OptimConfig, steps: int, step: int) -> float:
    """The share of its weights that a teacher keeps after update `step` (from 0) of `steps`: in a straight line."""
    if optim.end_ema is None:
        return optim.ema
    return optim.ema + (optim.end_ema - optim.ema) * step / max(steps - 1, 1)
