"""The scenes of the synthetic world: a textured room, five textured bodies, a light and a moving camera.

A scene is a pure function of (seed, index), drawn only through `layerlock.draws`; textures are sums of a few smooth
waves, so that no rounding error grows into a visible difference between machines. Scenes are built many at a time:
all of `B` scenes with the operations of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.motion import State, labels, perform

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record", bound="DataclassInstance")

_NUMBERS = 256
_EYE_HEIGHT = 2.0
_CHANCE, _ANGLE = (0.0, 1.0), (0.0, 2 * math.pi)
_SWING = (_ANGLE, (2.0, 4.5))  # phase and rate


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Solid textures: waves over the place in the body's own frame mix two colours (RGB in 0..1)."""

    dark: Tensor  # [..., 3]
    bright: Tensor  # [..., 3]
    waves: Tensor  # [..., 3, 3], a row for each wave, radians per metre
    phases: Tensor  # [..., 3]


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """Spheres (or ellipsoids) and boxes: their paths, orientations (columns: a body's own axes), half their extents."""

    centre_t3: Tensor  # [..., T, 3]
    turn_t33: Tensor  # [..., T, 3, 3]
    half: Tensor  # [..., 3]
    is_round: Tensor  # bool [...]
    texture: Texture


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Everything needed to draw `B` clips of `T` moments, float64. `view_bt33` columns: camera right, up, forward."""

    label_b: Tensor
    eye_bt3: Tensor
    view_bt33: Tensor
    light_b3: Tensor
    room: Bodies  # [B]
    floor_dark_b3: Tensor  # the two colours of the floor; the walls have those of `room`
    floor_bright_b3: Tensor
    bodies: Bodies  # [B, N]: the actor first, then partner, post, distractors

    def __len__(self) -> int:
        return len(self.label_b)

    def part(self, begin: int, end: int) -> Scenes:
        """The scenes from `begin` up to `end`."""
        return each(lambda tensors: tensors[0][begin:end], [self])


def each(function: Callable[[list[Tensor]], Tensor], records: Sequence[_Record]) -> _Record:
    """A record of what `function` makes of each tensor, given a list of that of every record."""
    made = {}
    for field in fields(records[0]):
        values = [getattr(record, field.name) for record in records]
        made[field.name] = function(values) if isinstance(values[0], Tensor) else each(function, values)
    return replace(records[0], **made)


class _Dice:
    """Uniform numbers of the scenes, handed out in order; every scene throws the same dice in the same order."""

    def __init__(self, seed: int, index_b: Tensor) -> None:
        self._numbers_bn = draws.uniform(seed, "world", index_b, _NUMBERS)
        self._thrown = 0

    def __call__(self, *ranges: tuple[float, float]) -> Tensor:
        """`[B, len(ranges)]`, a column from low to high for each range."""
        first, self._thrown = self._thrown, self._thrown + len(ranges)
        low_n, reach_n = _bounds(ranges)
        return low_n + reach_n * self._numbers_bn[:, first : self._thrown]


@cache
def _bounds(ranges: tuple[tuple[float, float], ...]) -> tuple[Tensor, Tensor]:
    low_n, high_n = torch.tensor(ranges, dtype=torch.float64).unbind(1)
    return low_n, high_n - low_n


def build_scenes(seed: int, index_b: Tensor, time_t: Tensor) -> Scenes:
    """The scenes `index_b` `[B]` of the world `seed` at the times `time_t` `[T]` (float64 seconds, 0 is their middle).

    A scene does not depend on the others that are built with it.
    """
    dice = _Dice(seed, index_b)
    label_b = labels(seed, index_b)
    eye_bt3, view_bt33 = _camera(dice, time_t)
    room, floor = _room(dice, time_t)
    coin_b, length_b, half_b = dice(_CHANCE, (0.58, 0.66), (0.3, 0.34)).unbind(1)
    partner_coin_b, partner_half_b = dice(_CHANCE, (0.2, 0.24)).unbind(1)
    motion = perform(label_b, _state(dice, 0.45 * (length_b + half_b) + partner_half_b), time_t)
    lift_bt3 = torch.stack([torch.zeros_like(half_b), half_b, torch.zeros_like(half_b)], dim=1)[:, None]
    actor = Bodies(
        centre_t3=motion.actor_bt3 + lift_bt3,
        turn_t33=_turn(motion.yaw_bt, dice((-0.15, 0.15))),
        half=torch.stack([length_b, half_b, half_b], dim=1),
        is_round=coin_b < 0.5,
        texture=_two_ended(dice, length_b),
    )
    turn_b2 = dice(_ANGLE, (-0.3, 0.3))
    partner = Bodies(
        centre_t3=_above_floor(motion.partner_bt3 + lift_bt3, partner_half_b),
        turn_t33=_turn(turn_b2[:, :1].expand_as(motion.yaw_bt), turn_b2[:, 1:]),
        half=_extents(partner_half_b, partner_coin_b < 0.5),
        is_round=partner_coin_b < 0.5,
        texture=_texture(dice, _cool(dice), 7.0),
    )
    bodies = [actor, partner, _post(dice, motion.post_bt3), *(_distractor(dice, side, time_t) for side in (-1.0, 1.0))]
    light_b3 = dice((-0.6, 0.6), (-0.9, -0.4))[:, [0, 0, 1]].index_fill_(1, torch.tensor(1), 1.0)
    return Scenes(
        label_b=label_b,
        eye_bt3=eye_bt3,
        view_bt33=view_bt33,
        light_b3=light_b3 / light_b3.norm(dim=1, keepdim=True),
        room=room,
        floor_dark_b3=floor[0],
        floor_bright_b3=floor[1],
        bodies=each(lambda tensors: torch.stack(tensors, dim=1), bodies),
    )


def _state(dice: _Dice, touching_b: Tensor) -> State:
    along_x, along_y, along_z, gap, sway, bearing, yaw, apex, rising, clockwise = dice(
        _CHANCE, _CHANCE, _CHANCE, _ANGLE, _ANGLE, _ANGLE, _ANGLE, (1.0, 1.5), _CHANCE, _CHANCE
    ).unbind(1)
    return State(
        along_x=along_x,
        along_y=along_y,
        along_z=along_z,
        gap=gap,
        sway=sway,
        bearing=bearing,
        yaw=yaw,
        apex=apex,
        contact=touching_b,
        stretch=torch.ones_like(touching_b),
        rising=rising < 0.5,
        clockwise=clockwise < 0.5,
    )


def _camera(dice: _Dice, time_t: Tensor) -> tuple[Tensor, Tensor]:
    """A hand-held camera: eye `[B, T, 3]` and view `[B, T, 3, 3]` wander slowly about a random pose."""
    wander_bt3 = 0.07 * _swing(dice(*_SWING, *_SWING, *_SWING), time_t)
    place_b3 = dice((-0.3, 0.3), (-0.15, 0.15), (-0.1, 0.1)) + time_t.new_tensor([0.0, _EYE_HEIGHT, 0.0])
    yaw_b3, pitch_b3 = dice((-0.1, 0.1), *_SWING), dice((0.18, 0.24), *_SWING)
    yaw_bt = yaw_b3[:, :1] + 0.02 * _swing(yaw_b3[:, 1:], time_t)[..., 0]
    pitch_bt = pitch_b3[:, :1] + 0.015 * _swing(pitch_b3[:, 1:], time_t)[..., 0]
    return place_b3[:, None] + wander_bt3, _turn(yaw_bt, pitch_bt)


def _swing(throws_bn: Tensor, time_t: Tensor) -> Tensor:
    """To and fro in -1..1 `[B, T, N / 2]`, by throws for `_SWING`, side by side."""
    phase_b1n, rate_b1n = throws_bn[:, None].unflatten(2, (-1, 2)).unbind(3)
    return (phase_b1n + rate_b1n * time_t[:, None]).sin()


def _turn(yaw_bt: Tensor, pitch: Tensor) -> Tensor:
    """Rotations `[B, T, 3, 3]`: pitch about x (positive dips forward), then yaw about y (positive turns left)."""
    pitch_bt = pitch.expand_as(yaw_bt)
    cy, sy, cp, sp, zero = yaw_bt.cos(), yaw_bt.sin(), pitch_bt.cos(), pitch_bt.sin(), torch.zeros_like(yaw_bt)
    rows = [cy, -sy * sp, -sy * cp, zero, cp, -sp, sy, cy * sp, cy * cp]
    return torch.stack(rows, dim=2).unflatten(2, (3, 3))


def _above_floor(centre_bt3: Tensor, half_b: Tensor) -> Tensor:
    x_bt, y_bt, z_bt = centre_bt3.unbind(2)
    return torch.stack([x_bt, torch.maximum(y_bt, half_b[:, None]), z_bt], dim=2)


def _extents(half_b: Tensor, round_b: Tensor) -> Tensor:
    return torch.where(round_b, half_b, 0.86 * half_b)[:, None].expand(-1, 3)


def _room(dice: _Dice, time_t: Tensor) -> tuple[Bodies, Sequence[Tensor]]:
    half_b3 = dice((2.6, 3.2), (1.5, 1.8), (3.8, 4.2))
    x_b, z_b = dice((-0.3, 0.3), (-0.3, 0.3)).unbind(1)
    centre_b3 = torch.stack([x_b, half_b3[:, 1], 7.2 - half_b3[:, 2] + z_b], dim=1)
    tone_b1 = dice(_CHANCE)
    throws_b7 = dice((0.1, 0.25), (0.4, 0.5), (0.1, 0.25), (0.62, 0.8), (0.1, 0.3), (0.25, 0.4), (0.5, 0.65))
    colours = _colours(
        tone_b1 + time_t.new_tensor([0.0, 0.08, 0.4, 0.45]),
        torch.stack([*throws_b7[:, [0, 2, 4]].unbind(1), torch.full_like(x_b, 0.2)], dim=1),
        throws_b7[:, [1, 3, 5, 6]],
    )
    room = Bodies(
        centre_t3=centre_b3[:, None].expand(-1, len(time_t), -1),
        turn_t33=torch.eye(3, dtype=time_t.dtype).expand(len(x_b), len(time_t), 3, 3),
        half=half_b3,
        is_round=torch.zeros_like(x_b, dtype=torch.bool),
        texture=_texture(dice, colours[:2], 3.6),
    )
    return room, colours[2:]


def _post(dice: _Dice, before_bt3: Tensor) -> Bodies:
    """A slim upright box between the camera and the points `before_bt3` `[B, T, 3]`, standing on the floor."""
    height_b, nearness_b, yaw_b = dice((1.15, 1.3), (0.6, 0.66), _ANGLE).unbind(1)
    slim_b = torch.full_like(height_b, 0.055)
    x_bt, _, z_bt = (nearness_b[:, None, None] * before_bt3).unbind(2)
    return Bodies(
        centre_t3=torch.stack([x_bt, height_b[:, None].expand_as(x_bt), z_bt], dim=2),
        turn_t33=_turn(yaw_b[:, None].expand_as(x_bt), torch.zeros_like(x_bt)),
        half=torch.stack([slim_b, height_b, slim_b], dim=1),
        is_round=torch.zeros_like(height_b, dtype=torch.bool),
        texture=_texture(dice, _cool(dice), 6.0),
    )


def _distractor(dice: _Dice, side: float, time_t: Tensor) -> Bodies:
    """A body at the back of the room that drifts and turns about itself, whatever the action."""
    coin_b, half_b, x_b, lift_b, z_b = dice(_CHANCE, (0.3, 0.5), (0.4, 1.9), _CHANCE, (5.8, 6.3)).unbind(1)
    drift_b33 = dice(*3 * ((0.1, 0.4), *_SWING)).unflatten(1, (3, 3))
    place_b3 = torch.stack([side * x_b, half_b + (2.0 - half_b) * lift_b, z_b], dim=1)
    drift_bt3 = drift_b33[:, None, :, 0] * _swing(drift_b33[:, :, 1:].flatten(1), time_t)
    turn_b3 = dice(_ANGLE, (-1.5, 1.5), (-0.4, 0.4))
    return Bodies(
        centre_t3=_above_floor(place_b3[:, None] + drift_bt3, half_b),
        turn_t33=_turn(turn_b3[:, :1] + turn_b3[:, 1:2] * time_t, turn_b3[:, 2:]),
        half=_extents(half_b, coin_b < 0.5),
        is_round=coin_b < 0.5,
        texture=_texture(dice, _cool(dice), 5.0),
    )


def _texture(dice: _Dice, colours: Sequence[Tensor], rate: float) -> Texture:
    """Three waves of about `rate` radians per metre times a random direction, not too steep: so it shows turning."""
    direction = ((-0.6, 0.6), _ANGLE)
    throws_b33 = dice((0.9, 1.3), *direction, (0.9, 1.3), *direction, (0.4, 0.7), *direction).unflatten(1, (3, 3))
    scale_b3, y_b3, around_b3 = throws_b33.unbind(2)
    flat_b3 = (1 - y_b3 * y_b3).sqrt()
    direction_b33 = torch.stack([flat_b3 * around_b3.cos(), y_b3, flat_b3 * around_b3.sin()], dim=2)
    waves_b33 = (rate * scale_b3)[:, :, None] * direction_b33
    return Texture(dark=colours[0], bright=colours[1], waves=waves_b33, phases=dice(_ANGLE, _ANGLE, _ANGLE))


def _two_ended(dice: _Dice, length_b: Tensor) -> Texture:
    """A dark and a bright end along the body's first axis, so that even a coarse look sees which way it turns."""
    dark_b3, bright_b3 = _warm(dice)
    across_b32 = dice(*4 * ((-2.0, 2.0),), *2 * ((2.0, 5.0),)).unflatten(1, (3, 2))
    along_b3 = (1.6 / length_b)[:, None] * length_b.new_tensor([1.0, 1.0, 0.0])
    phases_b3 = dice(_ANGLE) * length_b.new_tensor([0.0, 0.0, 1.0])
    waves_b33 = torch.cat([along_b3[:, :, None], across_b32], dim=2)
    return Texture(dark=dark_b3, bright=bright_b3, waves=waves_b33, phases=phases_b3)


def _warm(dice: _Dice) -> Sequence[Tensor]:
    hue_b, value_b, bright_hue_b = dice((-0.03, 0.02), (0.4, 0.5), (0.1, 0.15)).unbind(1)
    values_b2 = torch.stack([value_b, torch.ones_like(value_b)], dim=1)
    return _colours(torch.stack([hue_b, bright_hue_b], dim=1), values_b2.new_tensor([[0.95, 0.9]]), values_b2)


def _cool(dice: _Dice) -> Sequence[Tensor]:
    throws_b5 = dice((0.42, 0.7), (0.1, 0.6), (0.2, 0.4), (-0.06, 0.06), (0.65, 0.9))
    hue_b1, saturation_b1 = throws_b5[:, :1], throws_b5[:, 1:2]
    return _colours(torch.cat([hue_b1, hue_b1 + throws_b5[:, 3:4]], dim=1), saturation_b1, throws_b5[:, [2, 4]])


def _colours(hue_bn: Tensor, saturation_bn: Tensor, value_bn: Tensor) -> Sequence[Tensor]:
    """Red, green and blue, N of `[B, 3]`, of hue (1 is a full turn), saturation and value, both in 0..1."""
    sixth_bn3 = (6 * hue_bn[..., None] + hue_bn.new_tensor([5.0, 3.0, 1.0])) % 6
    fall_bn3 = torch.minimum(sixth_bn3, 4 - sixth_bn3).clamp_(0, 1)
    return (value_bn[..., None] * (1 - saturation_bn[..., None] * fall_bn3)).unbind(1)
