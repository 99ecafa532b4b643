"""The scenes of the synthetic world: a textured room, five textured bodies, a light and a moving camera.

A scene is a pure function of (seed, index), drawn only through `layerlock.draws`; textures are sums of a few smooth
waves, so that no rounding error grows into a visible difference between machines.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data.motion import ACTIONS, State, labels, perform

Vector = tuple[float, float, float]

_NUMBERS = 256
_EYE_HEIGHT = 2.0


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A solid texture: waves over the place in the body's own frame mix two colours (RGB in 0..1)."""

    dark: Vector
    bright: Vector
    waves: tuple[Vector, Vector, Vector]  # radians per metre
    phases: Vector


@dataclass(frozen=True, kw_only=True)
class Body:
    """A sphere (or ellipsoid) or a box: half its extents, its path and its orientation (columns: its own axes)."""

    centre_t3: Tensor
    turn_t33: Tensor
    half: Vector
    is_round: bool
    texture: Texture


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything needed to draw one clip, float64; `T` moments. `view_t33` columns: camera right, up, forward."""

    label: int
    eye_t3: Tensor
    view_t33: Tensor
    light: Vector
    room: Body
    floor: tuple[Vector, Vector]  # the two colours of the floor; the walls have those of `room`
    bodies: tuple[Body, ...]  # the actor first, then partner, post, distractors


class _Dice:
    """Uniform numbers of one scene, handed out in order; every scene throws the same dice in the same order."""

    def __init__(self, seed: int, index: int) -> None:
        self._numbers = iter(draws.uniform(seed, "world", torch.tensor([index]), _NUMBERS)[0].tolist())

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(next(self._numbers))

    def coin(self) -> bool:
        return self(0, 1) < 0.5

    def angle(self) -> float:
        return self(0, 2 * math.pi)

    def direction(self) -> Vector:
        """A direction that is not too steep, so that a texture along it shows turning."""
        y, around = self(-0.6, 0.6), self.angle()
        flat = math.sqrt(1 - y * y)
        return flat * math.cos(around), y, flat * math.sin(around)


def build_scene(seed: int, index: int, time_t: Tensor) -> Scene:
    """The scene `index` of the world `seed` at the times `time_t` `[T]` (float64 seconds, 0 is its middle)."""
    dice = _Dice(seed, index)
    label = int(labels(seed, torch.tensor([index]))[0])
    eye_t3, view_t33 = _camera(dice, time_t)
    room, floor = _room(dice, time_t)
    actor_round, actor_length, actor_half = dice.coin(), dice(0.58, 0.66), dice(0.3, 0.34)
    partner_round, partner_half = dice.coin(), dice(0.2, 0.24)
    motion = perform(ACTIONS[label], _state(dice, 0.45 * (actor_length + actor_half) + partner_half), time_t)
    lift_3 = time_t.new_tensor([0.0, actor_half, 0.0])
    still_t = torch.zeros_like(time_t)
    actor = Body(
        centre_t3=motion.actor_t3 + lift_3,
        turn_t33=_turn(motion.yaw_t, dice(-0.15, 0.15)),
        half=(actor_length, actor_half, actor_half),
        is_round=actor_round,
        texture=_two_ended(dice, actor_length),
    )
    partner = Body(
        centre_t3=_above_floor(motion.partner_t3 + lift_3, partner_half),
        turn_t33=_turn(still_t + dice.angle(), dice(-0.3, 0.3)),
        half=_extents(partner_half, partner_round),
        is_round=partner_round,
        texture=_texture(dice, _cool(dice), 7.0),
    )
    bodies = (actor, partner, _post(dice, motion.post_t3), *(_distractor(dice, side, time_t) for side in (-1.0, 1.0)))
    light = (dice(-0.6, 0.6), 1.0, dice(-0.9, -0.4))
    length = math.sqrt(sum(value * value for value in light))
    return Scene(
        label=label,
        eye_t3=eye_t3,
        view_t33=view_t33,
        light=(light[0] / length, light[1] / length, light[2] / length),
        room=room,
        floor=floor,
        bodies=bodies,
    )


def _state(dice: _Dice, touching: float) -> State:
    return State(
        along_x=dice(0, 1),
        along_y=dice(0, 1),
        along_z=dice(0, 1),
        gap=dice.angle(),
        sway=dice.angle(),
        bearing=dice.angle(),
        yaw=dice.angle(),
        apex=dice(1.0, 1.5),
        contact=touching,
        stretch=1.0,
        rising=dice.coin(),
        clockwise=dice.coin(),
    )


def _camera(dice: _Dice, time_t: Tensor) -> tuple[Tensor, Tensor]:
    """A hand-held camera: eye `[T, 3]` and view `[T, 3, 3]` wander slowly about a random pose."""
    eye_t3 = torch.stack([_wander(dice, time_t, 0.07) for _ in range(3)], dim=1)
    eye_t3 = eye_t3 + time_t.new_tensor([dice(-0.3, 0.3), _EYE_HEIGHT + dice(-0.15, 0.15), dice(-0.1, 0.1)])
    yaw_t = dice(-0.1, 0.1) + _wander(dice, time_t, 0.02)
    pitch_t = dice(0.18, 0.24) + _wander(dice, time_t, 0.015)
    return eye_t3, _turn(yaw_t, pitch_t)


def _wander(dice: _Dice, time_t: Tensor, reach: float) -> Tensor:
    return reach * (dice.angle() + dice(2.0, 4.5) * time_t).sin()


def _turn(yaw_t: Tensor, pitch: Tensor | float) -> Tensor:
    """Rotations `[T, 3, 3]`: pitch about x (positive dips forward), then yaw about y (positive turns left)."""
    pitch_t = torch.zeros_like(yaw_t) + pitch
    cy, sy, cp, sp, zero = yaw_t.cos(), yaw_t.sin(), pitch_t.cos(), pitch_t.sin(), torch.zeros_like(yaw_t)
    rows = [cy, -sy * sp, -sy * cp, zero, cp, -sp, sy, cy * sp, cy * cp]
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _above_floor(centre_t3: Tensor, half: float) -> Tensor:
    return torch.stack([centre_t3[:, 0], centre_t3[:, 1].clamp(min=half), centre_t3[:, 2]], dim=1)


def _extents(half: float, is_round: bool) -> Vector:
    size = half if is_round else 0.86 * half
    return size, size, size


def _room(dice: _Dice, time_t: Tensor) -> tuple[Body, tuple[Vector, Vector]]:
    half = (dice(2.6, 3.2), dice(1.5, 1.8), dice(3.8, 4.2))
    centre = time_t.new_tensor([dice(-0.3, 0.3), half[1], 7.2 - half[2] + dice(-0.3, 0.3)])
    tone = dice(0, 1)
    walls = (_colour(tone, dice(0.1, 0.25), dice(0.4, 0.5)), _colour(tone + 0.08, dice(0.1, 0.25), dice(0.62, 0.8)))
    floor = (_colour(tone + 0.4, dice(0.1, 0.3), dice(0.25, 0.4)), _colour(tone + 0.45, 0.2, dice(0.5, 0.65)))
    room = Body(
        centre_t3=centre.expand(len(time_t), 3),
        turn_t33=torch.eye(3, dtype=time_t.dtype).expand(len(time_t), 3, 3),
        half=half,
        is_round=False,
        texture=_texture(dice, walls, 3.6),
    )
    return room, floor


def _post(dice: _Dice, before_t3: Tensor) -> Body:
    """A slim upright box between the camera and the points `before_t3` `[T, 3]`, standing on the floor."""
    half, nearness = (0.055, dice(1.15, 1.3), 0.055), dice(0.6, 0.66)
    x_t, z_t = nearness * before_t3[:, 0], nearness * before_t3[:, 2]
    return Body(
        centre_t3=torch.stack([x_t, torch.full_like(x_t, half[1]), z_t], dim=1),
        turn_t33=_turn(torch.zeros_like(x_t) + dice.angle(), 0.0),
        half=half,
        is_round=False,
        texture=_texture(dice, _cool(dice), 6.0),
    )


def _distractor(dice: _Dice, side: float, time_t: Tensor) -> Body:
    """A body at the back of the room that drifts and turns about itself, whatever the action."""
    is_round, half = dice.coin(), dice(0.3, 0.5)
    place = (side * dice(0.4, 1.9), dice(half, 2.0), dice(5.8, 6.3))
    centre_t3 = torch.stack([value + _wander(dice, time_t, dice(0.1, 0.4)) for value in place], dim=1)
    return Body(
        centre_t3=_above_floor(centre_t3, half),
        turn_t33=_turn(dice.angle() + dice(-1.5, 1.5) * time_t, dice(-0.4, 0.4)),
        half=_extents(half, is_round),
        is_round=is_round,
        texture=_texture(dice, _cool(dice), 5.0),
    )


def _texture(dice: _Dice, colours: tuple[Vector, Vector], rate: float) -> Texture:
    """Three waves of about `rate` radians per metre times a random direction."""

    def wave(scale: float) -> Vector:
        x, y, z = dice.direction()
        return rate * scale * x, rate * scale * y, rate * scale * z

    waves = (wave(dice(0.9, 1.3)), wave(dice(0.9, 1.3)), wave(dice(0.4, 0.7)))
    phases = (dice.angle(), dice.angle(), dice.angle())
    return Texture(dark=colours[0], bright=colours[1], waves=waves, phases=phases)


def _two_ended(dice: _Dice, length: float) -> Texture:
    """A dark and a bright end along the body's first axis, so that even a coarse look sees which way it turns."""
    rate, dark_bright = 1.6 / length, _warm(dice)
    waves = ((rate, dice(-2, 2), dice(-2, 2)), (rate, dice(-2, 2), dice(-2, 2)), (0.0, dice(2, 5), dice(2, 5)))
    return Texture(dark=dark_bright[0], bright=dark_bright[1], waves=waves, phases=(0.0, 0.0, dice.angle()))


def _colour(hue: float, saturation: float, value: float) -> Vector:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _warm(dice: _Dice) -> tuple[Vector, Vector]:
    return _colour(dice(-0.03, 0.02), 0.95, dice(0.4, 0.5)), _colour(dice(0.1, 0.15), 0.9, 1.0)


def _cool(dice: _Dice) -> tuple[Vector, Vector]:
    hue, saturation = dice(0.42, 0.7), dice(0.1, 0.6)
    return _colour(hue, saturation, dice(0.2, 0.4)), _colour(hue + dice(-0.06, 0.06), saturation, dice(0.65, 0.9))
