"""The room of each scene, seen from inside, with the shadows of the bodies on its floor."""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock.data.render.surface import levels, ripple, seen_from
from layerlock.data.scene import Scenes

_SHADOW = 0.55
_LEAST_FLOOR = 0.02


def draw_room(scenes: Scenes, right_w: Tensor, up_h: Tensor) -> tuple[Tensor, Tensor]:
    """The picture of the rooms, uint8 `[B, T, 3, H, W]`, and their depth in metres, float64 `[B, T, H, W]`.

    `right_w` and `up_h` are the pixels' centres on the plane at depth 1.
    """
    room = scenes.room
    eye_bt3, axes_bt33 = seen_from(room, scenes.eye_bt3, scenes.view_bt33)
    eye, rays = eye_bt3[..., None, None].unbind(2), _spread(axes_bt33, right_w, up_h)
    far = [ray.abs().reciprocal_().sub_(start / ray) for start, ray in zip(eye, rays, strict=True)]
    depth_bthw = torch.minimum(torch.minimum(far[0], far[1], out=far[0]), far[2])
    place = [torch.addcmul(start, ray, depth_bthw, out=ray) for start, ray in zip(eye, rays, strict=True)]
    lit_bthw, below_bthw = _light_room(place, far)
    _cast_shadows(scenes, place, below_bthw, lit_bthw)
    waves_bk3 = room.texture.waves * room.half[:, None]
    starts = (room.texture.phases[:, None] + eye_bt3 @ waves_bk3.mT)[..., None, None].unbind(2)
    along = _spread(waves_bk3[:, None] @ axes_bt33, right_w, up_h)
    wave_bthw = ripple([torch.addcmul(a, b, depth_bthw, out=b) for a, b in zip(starts, along, strict=True)])
    return _paint_room(scenes, wave_bthw, below_bthw, lit_bthw), depth_bthw


def _light_room(place: list[Tensor], spare: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Brightness, which falls towards corners, and how much of the floor shows, at places on the walls.

    The higher the power of a coordinate, the nearer to its wall alone it counts. Overwrites `spare`, of the same shape:
    passes over memory are most of the cost.
    """
    square = [torch.mul(value, value, out=old) for value, old in zip(place, spare, strict=True)]
    facing = [(value * value).square_() for value in square]
    total_bthw = (facing[0] + facing[1]).add_(facing[2])
    corner_bthw = square[0].mul_(square[1]).mul_(square[2])
    lit_bthw = facing[0].div_(total_bthw).mul_(-0.22).add_(1).sub_(corner_bthw, alpha=0.25)
    below_bthw = facing[1].div_(total_bthw).mul_(torch.mul(place[1], -0.5, out=total_bthw).add_(0.5))
    return lit_bthw, below_bthw


def _paint_room(scenes: Scenes, wave_bthw: Tensor, below_bthw: Tensor, lit_bthw: Tensor) -> Tensor:
    """Colours, which are linear in the texture's wave and in how far the floor takes over from the walls."""
    walls = scenes.room.texture
    wall_b3, wall_swing_b3 = levels(walls.dark, walls.bright)
    floor_b3, floor_swing_b3 = levels(scenes.floor_dark_b3, scenes.floor_bright_b3)
    waving_bthw = wave_bthw.mul_(lit_bthw)
    parts = [
        (waving_bthw, wall_swing_b3),
        (waving_bthw * below_bthw, floor_swing_b3 - wall_swing_b3),
        (below_bthw.mul_(lit_bthw), floor_b3 - wall_b3),
    ]
    colour_btchw = lit_bthw[:, :, None] * wall_b3[:, None, :, None, None]
    for part_bthw, share_b3 in parts:
        colour_btchw.addcmul_(part_bthw[:, :, None], share_b3[:, None, :, None, None])
    return colour_btchw.add_(0.5).to(torch.uint8)


def _cast_shadows(scenes: Scenes, place: list[Tensor], below_bthw: Tensor, lit_bthw: Tensor) -> None:
    """Darkens the floor around each body's foot, in place."""
    half_b3, bodies = scenes.room.half, scenes.bodies
    on_floor_bh = _between_first_and_last(below_bthw.amax(dim=(1, 3)) > _LEAST_FLOOR)
    rows = _span(on_floor_bh.any(dim=0).nonzero())
    x_btrw, z_btrw = (place[axis][:, :, rows] * half_b3[:, axis, None, None, None] for axis in (0, 2))
    ground_btrw = below_bthw[:, :, rows] * on_floor_bh[:, None, rows, None]
    squares_btrw = (x_btrw * x_btrw).addcmul_(z_btrw, z_btrw)
    offset_bnt3 = bodies.centre_t3 - scenes.room.centre_t3[:, None]
    lift_bnt = bodies.centre_t3[..., 1] - bodies.half[..., 1, None]
    reach_bnt = (1.6 * bodies.half[..., 0, None] + 0.3 * lift_bnt).square_()
    # (1 + distance squared / reach) squared divides the shadow: all of it times reach
    constant_bnt = reach_bnt + offset_bnt3[..., 0].square() + offset_bnt3[..., 2].square()
    strength_bnt = -_SHADOW / (1 + lift_bnt) * reach_bnt.square()
    terms = (-2 * offset_bnt3[..., 0], -2 * offset_bnt3[..., 2], constant_bnt, strength_bnt)
    for x_bt, z_bt, constant_bt, strength_bt in zip(*(term[..., None, None].unbind(1) for term in terms), strict=True):
        spread_btrw = torch.addcmul(squares_btrw, x_btrw, x_bt).addcmul_(z_btrw, z_bt).add_(constant_bt).square_()
        shadow_btrw = torch.div(ground_btrw, spread_btrw, out=spread_btrw)
        lit_bthw[:, :, rows].addcmul_(shadow_btrw.mul_(lit_bthw[:, :, rows]), strength_bt)


def _between_first_and_last(true_bh: Tensor) -> Tensor:
    """All from the first to the last that is true."""
    return true_bh.cummax(dim=1).values & true_bh.flip(1).cummax(dim=1).values.flip(1)


def _span(places: Tensor) -> slice:
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _spread(axes_t33: Tensor, right_w: Tensor, up_h: Tensor) -> list[Tensor]:
    """What the rows of `axes_t33` `[..., T, K, 3]` give at every pixel (right, up, 1): K of `[..., T, H, W]`."""
    right_t3, up_t3, ahead_t3 = axes_t33[..., None, None].unbind(-3)
    across = right_t3 * right_w + ahead_t3
    return [a + u for a, u in zip(across.unbind(-3), (up_t3 * up_h[:, None]).unbind(-3), strict=True)]
