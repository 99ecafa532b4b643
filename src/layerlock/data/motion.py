"""What happens in the synthetic world: the actions, their labels, and how they move the actor and its two companions.

The actor, a partner beside it and a post in front of it stand in every scene. A scene's state is a handful of numbers
(`State`), drawn without looking at the action; an action lets one of them run, always so that it keeps its
distribution: phases advance, and who has come to the end of a path starts over at its beginning. So *every* frame, on
its own, has the same distribution under every action, and only time tells them apart.

Lengths in metres, time in seconds; x right, y up, z away from the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    "along_x": {"moves_left": -1.0, "moves_right": 1.0},
    "along_y": {"moves_up": 1.0, "moves_down": -1.0},
    "along_z": {"moves_toward": -1.0, "moves_away": 1.0},
}
"""The places that actions let run, and which way."""
_PHASES = {
    "yaw": {"turns_left": 4.4, "turns_right": -4.4},
    "gap": {"collides": math.pi / 0.6},
    "sway": {"passes_behind": 2 * math.pi / 1.5},
    "bearing": {"orbits": 7.0},
}
"""The phases that actions let run, and their rates: radians per second."""

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
    """What is drawn for scenes at time 0, each `[B]`; places on paths are uniform in 0..1, phases in 0..2 pi."""

    along_x: Tensor
    along_y: Tensor
    along_z: Tensor
    gap: Tensor
    sway: Tensor
    bearing: Tensor
    yaw: Tensor
    apex: Tensor  # greatest height of the actor's lowest point above the floor
    contact: Tensor  # distance between the centres of actor and partner when they touch
    stretch: Tensor  # the most by which they are further apart
    rising: Tensor  # bool: which half of a bounce this is
    clockwise: Tensor  # bool: sense of the orbit


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Paths of the centres over time `[B, T, 3]` and the actor's yaw `[B, T]`; height 0: the actor lies on the floor.

    The post stands on the floor between the camera and the points `post_bt3`.
    """

    actor_bt3: Tensor
    partner_bt3: Tensor
    post_bt3: Tensor
    yaw_bt: Tensor


def perform(label_b: Tensor, state: State, time_t: Tensor) -> Motion:
    """The motions of the actions `label_b` `[B]` through `state` at the times `time_t` `[T]`, float64 seconds."""
    now = {name: value_b[:, None] for name, value_b in vars(state).items()}
    for name, signs in _PATHS.items():
        now[name] = (now[name] + _of_label(signs, label_b, time_t) * time_t / _PATH_SECONDS) % 1.0
    for name, rates in _PHASES.items():
        rate_b1 = _of_label(rates, label_b, time_t)
        if name == "bearing":
            rate_b1 = torch.where(now["clockwise"], -rate_b1, rate_b1)
        now[name] = now[name] + rate_b1 * time_t
    bouncing_bt = _to_and_fro(state.along_y[:, None], now["rising"], time_t / _BOUNCE_SECONDS)
    now["along_y"] = torch.where((label_b == ACTIONS.index("bounces"))[:, None], bouncing_bt, now["along_y"])
    return _arrange(now)


def _of_label(numbers: dict[str, float], label_b: Tensor, like: Tensor) -> Tensor:
    """The number of each action `[B, 1]`, 0 for those that have none."""
    return like.new_tensor([numbers.get(action, 0.0) for action in ACTIONS])[label_b][:, None]


def _to_and_fro(place_b1: Tensor, rising_b1: Tensor, turns_t: Tensor) -> Tensor:
    """Up and down between 0 and 1 at constant speed, from `place_b1`."""
    start_b1 = torch.where(rising_b1, place_b1 / 2, 1 - place_b1 / 2)
    return 1 - (2 * ((start_b1 + turns_t) % 1.0) - 1).abs()


def _arrange(now: dict[str, Tensor]) -> Motion:
    """Where everybody is: the same function of the state for every action."""
    post_x_bt = _X_REACH * (2 * now["along_x"] - 1)
    middle_x_bt = post_x_bt + _SWAY_REACH * now["sway"].cos()
    middle_z_bt = _MIDDLE_Z + _Z_REACH * (2 * now["along_z"] - 1)
    gap_bt = now["contact"] + now["stretch"] * now["gap"].sin().abs()
    apart_x_bt, dip_bt = gap_bt * now["bearing"].cos(), gap_bt * now["bearing"].sin()
    apart_y_bt, apart_z_bt = dip_bt * math.sin(_TILT), dip_bt * math.cos(_TILT)
    # a throw: its speed falls to nothing at the apex, so that a place at constant speed gives a parabola in time
    fall_bt = 1 - now["along_y"]
    height_bt = now["apex"] * (1 - fall_bt * fall_bt)
    actor = (middle_x_bt - _ACTOR_SHARE * apart_x_bt, height_bt, middle_z_bt - _ACTOR_SHARE * apart_z_bt)
    partner = (actor[0] + apart_x_bt, height_bt + apart_y_bt, actor[2] + apart_z_bt)
    return Motion(
        actor_bt3=torch.stack(actor, dim=2),
        partner_bt3=torch.stack(partner, dim=2),
        post_bt3=torch.stack([post_x_bt, torch.zeros_like(post_x_bt), middle_z_bt], dim=2),
        yaw_bt=now["yaw"],
    )
