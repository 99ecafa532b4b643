"""What frozen encoders make of clips, divided among the processes of a job.

The first process does the work of a verb, as it would alone; the others wait. What is made of clips by encoders is a
series of numbered items, batches as a rule, and of these it asks all: each is made whole by one process, in turn, and
comes to the first one in its order. So figures are those of one process, and no other part of a verb knows of several.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, Protocol, TypeVar, cast

import torch

from layerlock import exchange, together
from layerlock.encoders import FrozenEncoder
from layerlock.signals import StopSignal

Item_co = TypeVar("Item_co", covariant=True)
Item = TypeVar("Item")
Value = TypeVar("Value")


class Series(Protocol[Item_co]):
    """How numbered items are made. In a job it and its items have to be picklable; it holds no encoder."""

    def __call__(
        self, encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
    ) -> Generator[Item_co]:
        """The items of these numbers, in order."""
        ...


class _Crew:
    """The processes that wait for the first one to ask, from its side."""

    def __init__(self) -> None:
        self.at_work, self.coming = False, range(0)

    def items(
        self,
        series: Series[Item],
        encoders: Mapping[str, FrozenEncoder],
        device: torch.device,
        numbers: range,
    ) -> Generator[Item]:
        """All items of a series, in order."""
        if self.at_work:
            raise RuntimeError("one series at a time can be divided")
        size = together.size()
        together.told((series, numbers))
        self.at_work = True
        try:
            with closing(series(encoders, device, numbers[::size])) as own:
                for begin in range(0, len(numbers), size):
                    mine = next(own)
                    together.largest(0)
                    self.coming = range(1, len(numbers[begin : begin + size]))
                    yield mine
                    del mine
                    while self.coming:
                        yield self._take()
            self.at_work = False
        finally:
            self.call_off()

    def _take(self) -> Any:
        sender, self.coming = self.coming[0], self.coming[1:]
        return exchange.take(sender)

    def call_off(self) -> None:
        """Has the others leave a series that ends early, when what is on its way has arrived."""
        if self.at_work and not together.has_failed():
            while self.coming:
                self._take()
            together.largest(1)
        self.at_work, self.coming = False, range(0)


_crew: _Crew | None = None


def led(
    encoders: Mapping[str, FrozenEncoder],
    device: torch.device,
    work: Callable[[], Value],
    tells: Callable[[Value], Value] = lambda made: made,
) -> Value:
    """What the first process of a job makes by `work`, in which it can divide series; the others take part in those,
    with their own `encoders` of the same names on their own `device`, and return what it `tells` them of the result.
    """
    global _crew  # noqa: PLW0603
    if together.size() == 1:
        return work()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    together.meet()
    if not together.leads():
        with StopSignal():  # the first process ends when it is told to, and tells
            while (asked := together.told()) is not None:
                series, numbers = asked
                _help(series, numbers, encoders, device)
        return cast(Value, together.of_first(lambda: None))
    _crew = crew = _Crew()
    try:
        made = work()
    finally:
        _crew = None
        crew.call_off()
        if not together.has_failed():
            together.told(None)
    together.of_first(lambda: tells(made))
    return made


def _help(series: Series[Any], numbers: range, encoders: Mapping[str, FrozenEncoder], device: torch.device) -> None:
    """Makes this process's share of a series."""
    size, rank = together.size(), together.rank()
    with closing(series(encoders, device, numbers[rank::size])) as own:
        for begin in range(0, len(numbers), size):
            has_one = begin + rank < len(numbers)
            item = next(own) if has_one else None
            if together.largest(0):
                return
            if has_one:
                exchange.give(item)


def divided(
    series: Series[Item], encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
) -> Generator[Item]:
    """The items of a series, in order; made by all processes of a job within `led`, else by this one."""
    if _crew is None or not numbers:
        yield from series(encoders, device, numbers)
    else:
        yield from _crew.items(series, encoders, device, numbers)
