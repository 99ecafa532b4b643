"""Drifting gratings, of which everything is known: what blockwise learning (arXiv 2601.09040) asks of every depth, from
simple to less simple. Their settings are those of the paper's grids, in an order drawn from the seed.

Frames are 6.25 a second, as in the paper, so that gratings of more than 3.1 cycles a second seem to drift at another
speed or backwards. Phases, of which it says nothing, are random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws

RATE = 6.25
"""frames a second"""
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.5, 0.0))
"""grey, red, green, blue, orange: shares of red, green and blue"""

Settings = Mapping[str, Tensor]
"""of gratings `[V]`, by name"""
Of = Callable[[Settings], Tensor]
"""something that follows from settings, `[V]`"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of gratings: their settings, and what is asked of them."""

    name: str
    levels: Mapping[str, tuple[float, ...]]
    """the values of each setting: cycles a frame, degrees, cycles a second, contrast, number of the colour"""
    sides: tuple[tuple[Of, Of], ...]
    """cycles a frame and degrees of each grating, side by side from left to right"""
    targets: Mapping[str, Of]
    """each different value is a class"""


def _of(name: str) -> Of:
    return lambda settings: settings[name]


def _right_orientation(settings: Settings) -> Tensor:
    return (settings["left orientation"] + settings["orientation difference"]) % 360


def _rise(settings: Settings) -> Tensor:
    return settings["right spatial frequency"] - settings["left spatial frequency"]


_SINGLE: dict[str, tuple[float, ...]] = {
    "spatial frequency": (4, 8, 12, 16, 20, 24),
    "orientation": tuple(range(0, 360, 30)),
    "temporal frequency": (0.5, 1, 2, 4, 6, 8),
    "contrast": (0.2, 0.4, 0.6, 0.8, 1),
    "colour": (0, 1, 2, 3, 4),
}
SINGLE = Kind(
    name="grating",
    levels=_SINGLE,
    sides=((_of("spatial frequency"), _of("orientation")),),
    targets={name: _of(name) for name in _SINGLE},
)
"""10,800 settings"""

HALVES = Kind(
    name="two gratings",
    levels={
        "left spatial frequency": (4, 10, 16),
        "right spatial frequency": (4, 10, 16),
        "left orientation": tuple(range(0, 360, 30)),
        "orientation difference": (0, 45, 90, 135),
        "temporal frequency": (2, 5, 8),
        "contrast": (0.33, 0.67, 1),
        "colour": (0, 1, 2, 3),
    },
    sides=(
        (_of("left spatial frequency"), _of("left orientation")),
        (_of("right spatial frequency"), _right_orientation),
    ),
    targets={
        "left spatial frequency": _of("left spatial frequency"),
        "right spatial frequency": _of("right spatial frequency"),
        "left orientation": _of("left orientation"),
        "right orientation": _right_orientation,
        "spatial frequency difference": _rise,
        "orientation difference": _of("orientation difference"),
        "side of the higher spatial frequency": lambda settings: _rise(settings).sign(),
        "same spatial frequency": lambda settings: _rise(settings) == 0,
        "same orientation": lambda settings: settings["orientation difference"] == 0,
    },
)
"""15,552 settings of a left and a right half"""


@dataclass(frozen=True, kw_only=True)
class Gratings:
    """Some gratings of a kind: what they are, and their pixels when they are wanted."""

    kind: Kind
    settings: Settings
    phase_vp: Tensor
    """of each grating of a frame, in turns"""

    def __len__(self) -> int:
        return len(self.phase_vp)

    def classes(self) -> dict[str, Tensor]:
        """Class numbers int64 `[V]`, by target."""
        return {name: of(self.settings).unique(return_inverse=True)[1] for name, of in self.kind.targets.items()}

    def render(self, row_b: Tensor, frames: int, size: int) -> Tensor:
        """Those at some positions, uint8 `[B, frames, 3, size, size]`."""
        at = {name: value_v[row_b] for name, value_v in self.settings.items()}
        cycles_bp = torch.stack([cycles(at) for cycles, _ in self.kind.sides], 1)
        angle_bp = torch.stack([degrees(at) for _, degrees in self.kind.sides], 1).deg2rad()
        middle_s = (torch.arange(size) + 0.5) / size
        side_s = (middle_s * len(self.kind.sides)).long()
        cycles_b1s, angle_b1s, phase_b1s = (x[:, None, side_s] for x in (cycles_bp, angle_bp, self.phase_vp[row_b]))
        place_bss = cycles_b1s * (angle_b1s.cos() * middle_s + angle_b1s.sin() * middle_s[:, None]) + phase_b1s
        drift_bt = at["temporal frequency"][:, None] * torch.arange(frames) / RATE
        wave_btss = (2 * math.pi * (place_bss[:, None] - drift_bt[:, :, None, None])).sin()
        light_btss = 0.5 + 0.5 * at["contrast"][:, None, None, None] * wave_btss
        colour_b3 = torch.tensor(COLOURS)[at["colour"].long()]
        return (255 * light_btss[:, :, None] * colour_b3[:, None, :, None, None]).round().to(torch.uint8)


def gratings(kind: Kind, count: int, seed: int, size: int) -> Gratings:
    """The first `count` of a kind, all different, in an order that follows from the seed; fewer where there are not so
    many. Spatial frequencies that frames of `size` pixels cannot show, of half a cycle a pixel and more, are left out.
    """
    levels = {
        name: [value for value in values if "spatial" not in name or value < size / 2]
        for name, values in kind.levels.items()
    }
    sizes = [len(values) for values in levels.values()]
    order_v = draws.bits(seed, kind.name, torch.arange(math.prod(sizes)), 1)[:, 0].argsort()[:count]
    places = torch.unravel_index(order_v, sizes)
    settings = {name: torch.tensor(levels[name]).float()[at] for name, at in zip(levels, places, strict=True)}
    phase_vp = draws.uniform(seed, f"{kind.name}/phase", order_v, len(kind.sides)).float()
    return Gratings(kind=kind, settings=settings, phase_vp=phase_vp)
