"""Learning rate, weight decay and the teacher's average as pure functions of (step, switch log)."""

from __future__ import annotations

import math
from bisect import bisect_right

from layerlock.config import OptimConfig
from layerlock.learn.plan import SwitchLog


def learning_rate(optim: OptimConfig, steps: int, step: int, log: SwitchLog) -> float:
    """Of update `step` (from 0) of `steps`: in each cycle a linear warm-up and a fall to `end_lr`, along a cosine or at
    the end (warm-up, stable, decay: arXiv 2404.06395), and after each switch a mini warm-up.

    The mini warm-up scales what the fall says, from `1/n` up to 1 over its n steps (LayerLock Table 6).
    """
    at, length = _in_cycle(optim, steps, step)
    warmup = round(optim.warmup * steps)
    if at < warmup:
        rate = optim.start_lr + (optim.lr - optim.start_lr) * (at + 1) / warmup
    else:
        rate = optim.end_lr + (optim.lr - optim.end_lr) * _left(optim, at - warmup, length - warmup)
    if log and optim.mini_warmup > 0:
        length = max(1, round(optim.mini_warmup * steps))
        rate *= min(1.0, (step - log[-1].step + 1) / length)
    return rate


def _left(optim: OptimConfig, at: int, length: int) -> float:
    """The share of the fall from `lr` that is still to come, `at` updates after a warm-up, of `length`."""
    progress = at / max(length, 1)
    if optim.decay is None:
        return 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, (1 - progress) / optim.decay)


def _in_cycle(optim: OptimConfig, steps: int, step: int) -> tuple[int, int]:
    """Updates since the cycle of `step` began, and its length."""
    begins = optim.cycle_begins(steps)
    cycle = bisect_right(begins, step, hi=optim.cycles) - 1
    return step - begins[cycle], begins[cycle + 1] - begins[cycle]


def weight_decay(optim: OptimConfig, steps: int, step: int) -> float:
    """Of update `step` (from 0) of `steps`: from one value to the other along half a cosine (V-JEPA)."""
    if optim.end_weight_decay is None:
        return optim.weight_decay
    rise = 0.5 * (1 - math.cos(math.pi * step / max(steps - 1, 1)))
    return optim.weight_decay + (optim.end_weight_decay - optim.weight_decay) * rise


def teacher_decay(optim: OptimConfig, steps: int, step: int) -> float:
    """The share of its weights that a teacher keeps after update `step` (from 0) of `steps`: in a straight line."""
    if optim.end_teacher_decay is None:
        return optim.teacher_decay
    return optim.teacher_decay + (optim.end_teacher_decay - optim.teacher_decay) * step / max(steps - 1, 1)
