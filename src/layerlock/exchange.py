"""Tensors that the processes of a job exchange, as sums, means and copies; and what one of them sends to the first one.

All processes call each function at the same point of their work, except `give`, which the sender calls, and `take`,
which the first process calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, distributed, nn

from layerlock import together
from layerlock.parcels import pack, unpack

BUCKET_BYTES = 2**26
"""of what is added up at a time: what an exchange needs of memory, beside a tensor that is larger"""


def add_up(tensors: Sequence[Tensor], *, divisor: int = 1) -> int:
    """Puts the sum over all processes, divided by `divisor`, into each tensor; in float64 where one of them is.

    Returns how many bytes each process gave to the others' sum.
    """

    def sum_up(flat: Tensor, _: int) -> None:
        distributed.all_reduce(flat)
        if divisor > 1:
            flat /= divisor

    return _in_buckets([tensors], sum_up)


def average(tensors: Sequence[Tensor]) -> int:
    """Puts the mean over all processes into each tensor; returns what `add_up` does."""
    return add_up(tensors, divisor=together.size())


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> int:
    """Gives each parameter the gradient of the whole job's batch: the mean of those of its equal shares. Parameters
    without a gradient take no part. Returns what `add_up` does.
    """
    return average([parameter.grad for parameter in parameters if parameter.grad is not None])


def average_at(groups: Sequence[Sequence[Tensor]]) -> int:
    """Puts the mean over all processes into the tensors of each group, in the process whose number the group has; in
    the other processes their values are undefined afterwards. Returns how many bytes each process gave.
    """

    def average_one(flat: Tensor, owner: int) -> None:
        distributed.reduce(flat, dst=owner)
        flat /= together.size()

    return _in_buckets(groups, average_one)


def copy_first(tensors: Sequence[Tensor]) -> None:
    """Copies the tensors of the first process to all others: what each computed by itself may be rounded in another way
    on another machine.
    """
    copy_each([tensors])


def copy_each(groups: Sequence[Sequence[Tensor]]) -> None:
    """Copies the tensors of each group from the process whose number the group has to all others."""
    _in_buckets(groups, lambda flat, owner: distributed.broadcast(flat, src=owner))


def _in_buckets(groups: Sequence[Sequence[Tensor]], exchange: Callable[[Tensor, int], object]) -> int:
    """Has an exchange change the tensors of groups, a bucket of them at a time, each with the number of its group;
    returns their bytes.
    """
    tensors = [tensor for group in groups for tensor in group]
    if together.alone() or not tensors:
        return 0
    kind = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    most = BUCKET_BYTES // kind.itemsize
    buckets = [(bucket, owner) for owner, group in enumerate(groups) if group for bucket in _buckets(group, most)]
    rooms = [sum(tensor.numel() for tensor in bucket) for bucket, _ in buckets]
    buffer = torch.empty(max(rooms), dtype=kind, device=tensors[0].device)  # before the meeting: memory may be lacking
    together.meet()
    for (bucket, owner), room in zip(buckets, rooms, strict=True):
        flat = buffer[:room]
        torch.cat([tensor.detach().flatten() for tensor in bucket], out=flat)
        with together.exchanging():
            exchange(flat, owner)
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))
    return sum(rooms) * kind.itemsize


def _buckets(tensors: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Tensors in their order, so many together that they have `most` elements at most; larger ones are alone."""
    bucket, room = list[Tensor](), 0
    for tensor in tensors:
        if bucket and room + tensor.numel() > most:
            yield bucket
            bucket, room = [], 0
        bucket.append(tensor)
        room += tensor.numel()
    yield bucket


def first_rows(x_nd: Tensor, most: int) -> Tensor:
    """The first rows, `most` at most, of the `[n, D]` of all processes one below the other."""
    if together.alone():
        return x_nd[:most]
    count_r = torch.zeros(together.size(), dtype=torch.int64, device=x_nd.device)
    count_r[together.rank()] = len(x_nd)
    add_up([count_r])
    begin, rows = int(count_r[: together.rank()].sum()), min(most, int(count_r.sum()))
    joined_nd = x_nd.new_zeros(rows, x_nd.shape[1])
    own_nd = x_nd[: max(0, rows - begin)]
    joined_nd[begin : begin + len(own_nd)] = own_nd
    add_up([joined_nd])
    return joined_nd


def give(item: object) -> None:
    """Sends something that can be pickled to the first process, where `take` returns it; tensors go from device to
    device.
    """
    if together.alone():
        return
    packed, tensors = pack(item)
    kinds = [(tensor.shape, tensor.dtype, tensor.device.type) for tensor in tensors]
    with together.exchanging():
        distributed.send_object_list([packed, kinds], dst=0, device=torch.device("cpu"))
        for tensor in tensors:
            if tensor.numel():
                distributed.send(tensor.contiguous().flatten().view(torch.uint8), dst=0)


def take(sender: int) -> Any:
    """What process `sender` gives to this one, the first; tensors are on the same kind of device as there."""
    parcel: list[Any] = [None, None]
    tensors = list[Tensor]()
    with together.exchanging():
        distributed.recv_object_list(parcel, src=sender, device=torch.device("cpu"))
        for shape, kind, device in parcel[1]:
            tensors.append(torch.empty(shape, dtype=kind, device=device))
            if tensors[-1].numel():
                distributed.recv(tensors[-1].flatten().view(torch.uint8), src=sender)
    return unpack(parcel[0], tensors)
