"""The optimizer of the live parameters, its moments by parameter name: the same path for a switch and for a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layerlock.config import OptimConfig
from layerlock.learn.learner import Learner
from layerlock.learn.plan import SwitchLog
from layerlock.train.schedule import learning_rate, weight_decay

Moments = dict[str, dict[str, Tensor]]
"""Parameter name -> what the optimizer remembers of it, tensors by name; AdamW: {`step`, `exp_avg`, `exp_avg_sq`}."""

OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimConfig], torch.optim.Optimizer]] = {
    "adamw": lambda groups, optim: torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True),
    "sgd": lambda groups, optim: torch.optim.SGD(groups, lr=optim.lr, momentum=optim.betas[0]),
}
"""By `optim.name`; of groups of parameters, whose learning rates and weight decays are set before each update."""


TABLES = ("position", "time", "query")
"""parameters that have a row for each place or query, and are no matrices"""


def optimizer_problems(optim: OptimConfig) -> list[str]:
    """What is wrong with the name of an optimizer, a line each."""
    known = optim.name in OPTIMIZERS
    return [] if known else [f"optim.name: no optimizer is called {optim.name!r}; there are: {', '.join(OPTIMIZERS)}"]


def decays(name: str, parameter: Tensor, *, tokens: bool) -> bool:
    """Weight decay is for matrices: not for norms, biases, positions and queries (LayerLock A.2); for mask and decoding
    tokens where `tokens` says so.
    """
    if name.endswith(".token"):
        return tokens
    return parameter.ndim >= 2 and name.rpartition(".")[2] not in TABLES


def groups_of(named: Mapping[str, nn.Parameter], optim: OptimConfig) -> list[dict[str, Any]]:
    """Parameters as groups of an optimizer: those that decay, and the others."""
    decayed = {name for name, p in named.items() if decays(name, p, tokens=optim.decay_tokens)}
    groups = [
        {"params": [p for n, p in named.items() if n in decayed], "weight_decay": optim.weight_decay, "decays": True},
        {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0, "decays": False},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    learner: Learner,
    optim: OptimConfig,
    moments: Moments | None = None,
    own: Mapping[str, nn.Parameter] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of what the stage in force trains, or of some of it that this process updates; parameters that have
    `moments` go on from them.
    """
    live = learner.live() if own is None else own
    groups = groups_of(live, optim) or [{"params": [], "weight_decay": 0.0, "decays": False}]
    optimizer = OPTIMIZERS[optim.name](groups, optim)
    for name, parameter in live.items():
        if moments and name in moments:
            optimizer.state[parameter] = {kind: value.to(parameter.device) for kind, value in moments[name].items()}
    return optimizer


def bounded(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """The norm of all gradients together, on their device; they are scaled down to `limit` where they are above it."""
    live = list(parameters)
    if limit is not None:
        return torch.nn.utils.clip_grad_norm_(live, limit)
    return torch.nn.utils.get_total_norm([p.grad for p in live if p.grad is not None])


def schedule(optimizer: torch.optim.Optimizer, optim: OptimConfig, steps: int, step: int, log: SwitchLog) -> None:
    """Sets the learning rate and the weight decay of update `step` (from 0) of `steps`."""
    rate, decay = learning_rate(optim, steps, step, log), weight_decay(optim, steps, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if group["decays"]:
            group["weight_decay"] = decay


def moments_of(learner: Learner, optimizer: torch.optim.Optimizer) -> Moments:
    """The moments by parameter name; the tensors themselves, not copies."""
    return {name: dict(optimizer.state[p]) for name, p in learner.live().items() if p in optimizer.state}
