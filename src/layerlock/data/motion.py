"""What happens in the synthetic world: the actions, their labels, and how they move the actor and its two companions.

The actor, a partner beside it and a post in front of it stand in every scene. A scene's state is a handful of numbers
(`State`), drawn without looking at the action; an action lets one of them run, always so that it keeps its
distribution: phases advance, and who has come to the end of a path starts over at its beginning. So *every* frame, on
its own, has the same distribution under every action, and only time tells them apart.

Lengths in metres, time in seconds; x right, y up, z away from the camera.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from layerlock import draws

ACTIONS = (
    "bounces",
    "collides",
    "moves_away",
    "moves_down",
    "moves_left",
    "moves_right",
    "moves_toward",
    "moves_up",
    "orbits",
    "passes_behind",
    "stays",
    "turns_left",
    "turns_right",
)
"""The class names, sorted; a label is a position in this tuple. Turning is meant as seen from above."""

_PATHS = {
    "moves_left": ("along_x", -1),
    "moves_right": ("along_x", 1),
    "moves_up": ("along_y", 1),
    "moves_down": ("along_y", -1),
    "moves_toward": ("along_z", -1),
    "moves_away": ("along_z", 1),
}
_PHASES = {
    "turns_left": ("yaw", 4.4),
    "turns_right": ("yaw", -4.4),
    "collides": ("gap", math.pi / 0.6),
    "passes_behind": ("sway", 2 * math.pi / 1.5),
    "orbits": ("bearing", 7.0),
}
"""The number that an action lets run, and its rate: radians per second."""

_PATH_SECONDS, _BOUNCE_SECONDS = 1.1, 0.9
_X_REACH, _Z_REACH, _SWAY_REACH = 0.65, 0.95, 0.6
_MIDDLE_Z = 3.6
_ACTOR_SHARE = 0.6
_TILT = math.radians(30)


def labels(seed: int, index_b: Tensor) -> Tensor:
    """Action labels `[B]` (int64) of the scenes `index_b`: each run of 13 indices holds each action once."""
    block_b = torch.div(index_b, len(ACTIONS), rounding_mode="floor")
    order_bn = draws.bits(seed, "world/label", block_b, len(ACTIONS)).argsort(dim=1)
    return order_bn.gather(1, (index_b % len(ACTIONS))[:, None])[:, 0]


def mirrored(label: int) -> int:
    """The label of the same clip seen in a mirror: left and right change places."""
    name = ACTIONS[label]
    if name.endswith("_left"):
        return ACTIONS.index(name.removesuffix("left") + "right")
    if name.endswith("_right"):
        return ACTIONS.index(name.removesuffix("right") + "left")
    return label


@dataclass(frozen=True, kw_only=True)
class State:
    """What is drawn for a scene at time 0; places on paths are uniform in 0..1, phases in 0..2 pi."""

    along_x: float
    along_y: float
    along_z: float
    gap: float
    sway: float
    bearing: float
    yaw: float
    apex: float  # greatest height of the actor's lowest point above the floor
    contact: float  # distance between the centres of actor and partner when they touch
    stretch: float  # the most by which they are further apart
    rising: bool  # which half of a bounce this is
    clockwise: bool  # sense of the orbit


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Paths of the centres over time `[T, 3]` and the actor's yaw `[T]`; height 0: the actor lies on the floor.

    The post stands on the floor between the camera and the points `post_t3`.
    """

    actor_t3: Tensor
    partner_t3: Tensor
    post_t3: Tensor
    yaw_t: Tensor


def perform(action: str, state: State, time_t: Tensor) -> Motion:
    """The motion of one action through `state` at the times `time_t` `[T]`, float64 seconds."""
    now = {name: torch.full_like(time_t, value) for name, value in asdict(state).items()}
    if action in _PATHS:
        name, sign = _PATHS[action]
        now[name] = (now[name] + sign * time_t / _PATH_SECONDS) % 1.0
    elif action in _PHASES:
        name, rate = _PHASES[action]
        now[name] = now[name] + (-rate if action == "orbits" and state.clockwise else rate) * time_t
    elif action == "bounces":
        now["along_y"] = _to_and_fro(state.along_y, state.rising, time_t / _BOUNCE_SECONDS)
    return _arrange(now)


def _to_and_fro(place: float, rising: bool, turns_t: Tensor) -> Tensor:
    """Up and down between 0 and 1 at constant speed, from `place`."""
    start = place / 2 if rising else 1 - place / 2
    return 1 - (2 * ((start + turns_t) % 1.0) - 1).abs()


def _arrange(now: dict[str, Tensor]) -> Motion:
    """Where everybody is: the same function of the state for every action."""
    post_x_t = _X_REACH * (2 * now["along_x"] - 1)
    middle_x_t = post_x_t + _SWAY_REACH * now["sway"].cos()
    middle_z_t = _MIDDLE_Z + _Z_REACH * (2 * now["along_z"] - 1)
    gap_t = now["contact"] + now["stretch"] * now["gap"].sin().abs()
    apart_x_t, dip_t = gap_t * now["bearing"].cos(), gap_t * now["bearing"].sin()
    apart_y_t, apart_z_t = dip_t * math.sin(_TILT), dip_t * math.cos(_TILT)
    # a throw: its speed falls to nothing at the apex, so that a place at constant speed gives a parabola in time
    fall_t = 1 - now["along_y"]
    height_t = now["apex"] * (1 - fall_t * fall_t)
    actor = (middle_x_t - _ACTOR_SHARE * apart_x_t, height_t, middle_z_t - _ACTOR_SHARE * apart_z_t)
    partner = (actor[0] + apart_x_t, height_t + apart_y_t, actor[2] + apart_z_t)
    return Motion(
        actor_t3=torch.stack(actor, dim=1),
        partner_t3=torch.stack(partner, dim=1),
        post_t3=torch.stack([post_x_t, torch.zeros_like(post_x_t), middle_z_t], dim=1),
        yaw_t=now["yaw"],
    )
