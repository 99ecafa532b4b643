"""Learning rate as a pure function of (step, switch log)."""

from __future__ import annotations

import math

from layerlock.config import OptimConfig
from layerlock.learn.plan import SwitchLog


def learning_rate(optim: OptimConfig, steps: int, step: int, log: SwitchLog) -> float:
    """Of update `step` (from 0) of `steps`: a linear warm-up, a cosine to `end_lr`, and after each switch a mini warm-
    up.

    The mini warm-up scales what the cosine says, from `1/n` up to 1 over its n steps (LayerLock Table 6).
    """
    warmup = round(optim.warmup * steps)
    if step < warmup:
        rate = optim.lr * (step + 1) / warmup
    else:
        progress = (step - warmup) / max(steps - warmup, 1)
        rate = optim.end_lr + (optim.lr - optim.end_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    if log and optim.mini_warmup > 0:
        length = max(1, round(optim.mini_warmup * steps))
        rate *= min(1.0, (step - log[-1].step + 1) / length)
    return rate
