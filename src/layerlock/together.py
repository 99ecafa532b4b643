"""What the processes of one job average and decide together, so that all go the same way; one alone keeps what it has.

All of them call each of these at the same point of their work. Nothing here starts processes or shares out the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def alone() -> bool:
    """Whether this process is all of its job: no `torch.distributed` group, or one of a single process."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def add_up(tensors: Sequence[Tensor]) -> None:
    """Puts the sum over all processes into each tensor; in one exchange, in float64 where one of them is."""
    if alone() or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def average(tensors: Sequence[Tensor]) -> None:
    """Puts the mean over all processes into each tensor."""
    if not alone():
        add_up(tensors)
        for tensor in tensors:
            tensor.detach().div_(distributed.get_world_size())


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives each parameter the gradient of the whole job's batch: the mean of those of its equal shares."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


def largest(value: int) -> int:
    """The largest value that a process has."""
    if alone():
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(value, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def mean_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures and tables of figures, by name, as means over all processes; none where a process has none."""
    if alone():
        return dict(figures)
    if largest(int(not figures)):
        return {}
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    values = [value for each in figures.values() for value in (each.values() if isinstance(each, dict) else [each])]
    flat = torch.tensor(values, dtype=torch.float64, device=device)
    average([flat])
    means = iter(flat.tolist())
    return {
        name: {inner: next(means) for inner in each} if isinstance(each, dict) else next(means)
        for name, each in figures.items()
    }
