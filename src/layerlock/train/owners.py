"""Which process of a job updates which parameter.

Divided (ZeRO, stage 1: arXiv 1910.02054), each process keeps the optimizer's moments of its own parameters alone: the
gradient of a parameter goes to the process that updates it, and its new value from there to all. Each is updated whole,
as one process alone would do it, so that no figure depends on who owns what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from layerlock import exchange, together
from layerlock.budget.devices import DEVICES, Machine
from layerlock.budget.stages import divides
from layerlock.config import Config
from layerlock.learn.plan import Plan
from layerlock.train.device import memory_of, pick_precision
from layerlock.train.optimizer import Moments, bounded

Live = Mapping[str, nn.Parameter]
"""the parameters that a stage trains, by name, in the same order in every process"""


class Owners:
    """The owner of each parameter that learns; where nothing is divided, every process updates all of them alike."""

    def __init__(self, *, divided: bool = False) -> None:
        self.divided = divided and together.size() > 1
        self._owner: dict[str, int] = {}
        self._learned: list[str] = []

    def enter(self, live: Live) -> None:
        """Takes over the parameters of a stage. Those that are new go, the largest first, to the process that has the
        least; the others stay where they are, so that moments need not move at a switch.
        """
        if not self.divided:
            return
        self._owner = {name: owner for name, owner in self._owner.items() if name in live}
        held = [0] * together.size()
        for name, owner in self._owner.items():
            held[owner] += live[name].numel()
        new = [name for name in live if name not in self._owner]
        for name in sorted(new, key=lambda name: -live[name].numel()):
            owner = held.index(min(held))
            self._owner[name] = owner
            held[owner] += live[name].numel()

    def own(self, live: Live) -> dict[str, nn.Parameter]:
        """The parameters that this process updates."""
        return {name: p for name, p in live.items() if not self.divided or self._owner[name] == together.rank()}

    def reduce_gradients(self, live: Live) -> int:
        """Gives each parameter that is updated here the gradient of the whole job's batch, the mean of those of its
        equal shares, and the others none. Returns how many bytes each process gave.
        """
        if not self.divided:
            return exchange.reduce_gradients(live.values())
        self._learned = [name for name, p in live.items() if p.grad is not None]
        given = exchange.average_at(self._of_each([(name, live[name].grad) for name in self._learned]))
        for name in self._learned:
            if self._owner[name] != together.rank():
                live[name].grad = None
        return given

    def bounded(self, live: Live, limit: float | None) -> Tensor:
        """The norm of all reduced gradients together; they are scaled down to `limit` where they are above it."""
        if not self.divided:
            return bounded(live.values(), limit)
        own = {name: p for name, p in self.own(live).items() if p.grad is not None}
        norm_p = torch.zeros(len(self._learned), device=next(iter(live.values())).device)
        for place, name in enumerate(self._learned):
            if name in own:
                norm_p[place] = torch.linalg.vector_norm(own[name].grad)
        exchange.add_up([norm_p])
        norm = torch.linalg.vector_norm(norm_p)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(own.values(), limit, norm)
        return norm

    def spread(self, live: Live) -> None:
        """Gives all processes what each has updated."""
        if self.divided:
            exchange.copy_each(self._of_each([(name, live[name]) for name in self._learned]))

    def gathered(self, moments: Moments) -> Moments:
        """The moments of all processes, on the CPU, in the first one; none in the others."""
        if not self.divided:
            return moments
        together.meet()
        found: Moments = {}
        for name, owner in self._owner.items():
            if together.rank() == owner != 0:
                exchange.give(moments.get(name, {}))
            elif together.leads():
                here = exchange.take(owner) if owner else moments.get(name, {})
                found[name] = {kind: value.cpu() for kind, value in here.items()}
        return found

    def _of_each(self, tensors: Sequence[tuple[str, Tensor | None]]) -> list[list[Tensor]]:
        """Those of the parameters of each process."""
        groups: list[list[Tensor]] = [[] for _ in range(together.size())]
        for name, tensor in tensors:
            assert tensor is not None
            groups[self._owner[name]].append(tensor)
        return groups


def pick_owners(config: Config, plan: Plan, device: torch.device) -> Owners:
    """Divided as `run.shard` says; auto: where the fullest stage would not fit into the memory of some process."""
    if together.size() == 1:
        return Owners()
    cpu, whole = device.type == "cpu", memory_of(device)
    hardware = replace(DEVICES["cpu" if cpu else "h100"], memory=whole / together.local_size() if cpu else whole)
    run = replace(config.run, precision="bf16" if pick_precision(config.run, device).itemsize == 2 else "fp32")
    divided = divides(replace(config, run=run), plan, Machine(device=hardware, gpus=together.size()))
    return Owners(divided=bool(together.largest(int(divided))))
