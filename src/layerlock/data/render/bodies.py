"""Spheres and boxes, drawn where they are nearer than what is there.

Each body has a window of each frame that holds it. The pixels of the windows of all bodies of a kind, in all frames and
scenes, make one list: so many small bodies cost as many operations as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlock.data.render.surface import levels, ripple, seen_from
from layerlock.data.scene import Bodies, Scenes, each

_NEAREST = 0.05  # a window is the whole frame when the body comes nearer to the eye, in metres
_MARGIN = 1e-9  # of windows, on the plane at depth 1, against rounding
_BRIGHTNESS, _CONTRAST = 0.8, 0.3


@dataclass(frozen=True)
class _Rays:
    """Rays through the pixels of windows, in one list; the eye and the rays in the frames of the bodies, in halves."""

    window_p: Tensor
    pixel_p: Tensor  # counted through all frames
    eye: list[Tensor]  # three of [P]
    rays: list[Tensor]  # three of [P]


def draw_bodies(
    is_round: bool, scenes: Scenes, right_w: Tensor, up_h: Tensor, *, video_btchw: Tensor, depth_bthw: Tensor
) -> None:
    """Draws the bodies of a kind over what is there, in place, where they are nearest.

    `right_w` and `up_h` are the pixels' centres on the plane at depth 1.
    """
    chosen_bn = scenes.bodies.is_round == is_round
    scene_m, bodies = chosen_bn.nonzero()[:, 0], each(lambda tensors: tensors[0][chosen_bn], [scenes.bodies])
    frames, (height, width) = depth_bthw.shape[1], depth_bthw.shape[2:]
    frame_i = (scene_m[:, None] * frames + torch.arange(frames)).flatten()
    listed = _list_rays(bodies, is_round, scenes.eye_bt3[scene_m], scenes.view_bt33[scene_m], frame_i, right_w, up_h)
    near_p, through_p = (_meet_sphere if is_round else _meet_box)(listed.eye, listed.rays)
    seen = _nearest(near_p, through_p, listed.pixel_p, depth_bthw.view(-1))
    near_p, window_p, pixel_p = (values.index_select(0, seen) for values in (near_p, listed.window_p, listed.pixel_p))
    place = [
        start.index_select(0, seen).addcmul_(ray.index_select(0, seen), near_p)
        for start, ray in zip(listed.eye, listed.rays, strict=True)
    ]
    light_mt3 = (scenes.light_b3[scene_m][:, None, None] @ bodies.turn_t33)[:, :, 0]
    lit_p = _light(is_round, place, _of_each(light_mt3.flatten(0, 1), window_p))
    red_p = pixel_p + frame_i.index_select(0, window_p) * (2 * height * width)
    for channel, colour_p in enumerate(_colours(bodies, place, window_p // frames)):
        shown_p = colour_p.mul_(lit_p).add_(0.5).clamp_(max=255).to(torch.uint8)
        video_btchw.view(-1).index_copy_(0, red_p + channel * height * width, shown_p)


def _list_rays(
    bodies: Bodies,
    is_round: bool,
    eye_mt3: Tensor,
    view_mt33: Tensor,
    frame_i: Tensor,
    right_w: Tensor,
    up_h: Tensor,
) -> _Rays:
    top_i, bottom_i, left_i, right_i = _windows(bodies, is_round, eye_mt3, view_mt33, right_w, up_h)
    window_r, y_r = _ranges(top_i, bottom_i)
    row_p, x_p = _ranges(left_i.index_select(0, window_r), right_i.index_select(0, window_r))
    window_p = window_r.index_select(0, row_p)
    first_r = (frame_i.index_select(0, window_r) * len(up_h) + y_r) * len(right_w)
    column_p, height_r = window_p * len(right_w) + x_p, up_h.index_select(0, y_r)
    eye_mt3, axes_mt33 = seen_from(bodies, eye_mt3, view_mt33)
    rays = []
    for axis_i3 in axes_mt33.flatten(0, 1).unbind(1):
        across_iw = axis_i3[:, :1] * right_w + axis_i3[:, 2:]
        up_r = axis_i3[:, 1].index_select(0, window_r) * height_r
        rays.append(across_iw.flatten().index_select(0, column_p).add_(up_r.index_select(0, row_p)))
    eye = _of_each(eye_mt3.flatten(0, 1), window_p)
    return _Rays(window_p, first_r.index_select(0, row_p).add_(x_p), eye, rays)


def _of_each(table_ic: Tensor, place_p: Tensor) -> list[Tensor]:
    """The columns of a table, each `[P]`, at the rows `place_p`."""
    return [column_i.index_select(0, place_p) for column_i in table_ic.t().contiguous()]


def _nearest(near_p: Tensor, through_p: Tensor, pixel_p: Tensor, depths: Tensor) -> Tensor:
    """Which rays meet their body before all else; `depths`, of all pixels, become theirs."""
    met = (torch.minimum(near_p, through_p) > 0).nonzero()[:, 0]
    met_pixel, met_near = pixel_p.index_select(0, met), near_p.index_select(0, met)
    depths.scatter_reduce_(0, met_pixel, met_near, "amin")
    return met[met_near == depths.index_select(0, met_pixel)]


def _ranges(begin_n: Tensor, end_n: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers of many ranges in one list: which range each is of, and the numbers."""
    count_n = end_n - begin_n
    range_p = torch.repeat_interleave(count_n)
    shift_n = begin_n - (count_n.cumsum(0) - count_n)
    return range_p, shift_n.index_select(0, range_p) + torch.arange(len(range_p))


def _windows(
    bodies: Bodies, is_round: bool, eye_mt3: Tensor, view_mt33: Tensor, right_w: Tensor, up_h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First row, end of rows, first column, end of columns, each `[M * T]`, outside of which a body is not seen."""
    centre_mt3 = ((bodies.centre_t3 - eye_mt3)[..., None, :] @ view_mt33)[..., 0, :]
    axes_mt33 = view_mt33.mT @ bodies.turn_t33 * bodies.half[:, None, None]
    low_mt2, high_mt2, ahead_mt = (_bound_sphere if is_round else _bound_box)(centre_mt3, axes_mt33)
    whole_mt1 = ahead_mt[..., None] < _NEAREST
    low = torch.where(whole_mt1, -math.inf, low_mt2 - _MARGIN).flatten(0, 1).t().contiguous()
    high = torch.where(whole_mt1, math.inf, high_mt2 + _MARGIN).flatten(0, 1).t().contiguous()
    top_i, bottom_i = torch.searchsorted(-up_h, -high[1]), torch.searchsorted(-up_h, -low[1], right=True)
    return top_i, bottom_i, torch.searchsorted(right_w, low[0]), torch.searchsorted(right_w, high[0], right=True)


def _bound_sphere(centre_mt3: Tensor, axes_mt33: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least and greatest (right, up) on the plane at depth 1 `[M, T, 2]`, and least depth `[M, T]`, of ellipsoids.

    A plane through the eye touches an ellipsoid where the squared distance from the centre, along the plane's normal,
    is that of the surface: a quadratic equation for where the plane cuts the picture.
    """
    spread_mt33 = axes_mt33 @ axes_mt33.mT
    side_mt2, ahead_mt1 = centre_mt3[..., :2], centre_mt3[..., 2:]
    reach_mt1 = ahead_mt1.square() - spread_mt33[..., 2, 2:]
    middle_mt2 = side_mt2 * ahead_mt1 - spread_mt33[..., 2, :2]
    across_mt2 = side_mt2.square() - spread_mt33.diagonal(dim1=-2, dim2=-1)[..., :2]
    root_mt2 = (middle_mt2.square() - reach_mt1 * across_mt2).clamp(min=0).sqrt()
    nearest_mt = ahead_mt1[..., 0] - spread_mt33[..., 2, 2].sqrt()
    return (middle_mt2 - root_mt2) / reach_mt1, (middle_mt2 + root_mt2) / reach_mt1, nearest_mt


def _bound_box(centre_mt3: Tensor, axes_mt33: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of boxes: of their eight corners."""
    signs_83 = torch.cartesian_prod(*3 * [axes_mt33.new_tensor([-1.0, 1.0])])
    corner_mt83 = centre_mt3[..., None, :] + signs_83 @ axes_mt33.mT
    seen_mt82 = corner_mt83[..., :2] / corner_mt83[..., 2:]
    return seen_mt82.amin(dim=-2), seen_mt82.amax(dim=-2), corner_mt83[..., 2].amin(dim=-1)


def _meet_sphere(eye: list[Tensor], rays: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Distance to the unit sphere, and what is positive where a ray goes through it."""
    a_p = rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2]
    b_p = eye[0] * rays[0] + eye[1] * rays[1] + eye[2] * rays[2]
    c_p = eye[0] * eye[0] + eye[1] * eye[1] + eye[2] * eye[2] - 1
    root_p = b_p * b_p - a_p * c_p
    return (-b_p - root_p.clamp(min=0).sqrt_()) / a_p, root_p


def _meet_box(eye: list[Tensor], rays: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Distance to the box from -1 to 1, and what is positive where a ray goes through it."""
    inverse = [ray.reciprocal() for ray in rays]
    middle = [start * value for start, value in zip(eye, inverse, strict=True)]
    half = [value.abs_() for value in inverse]
    near = [m + h for m, h in zip(middle, half, strict=True)]
    far = [h.sub_(m) for m, h in zip(middle, half, strict=True)]
    near_p = torch.minimum(torch.minimum(near[0], near[1]), near[2]).neg_()
    return near_p, torch.minimum(torch.minimum(far[0], far[1]), far[2]).sub_(near_p)


def _light(is_round: bool, place: list[Tensor], light: list[Tensor]) -> Tensor:
    """Brightness from the angle between surface and light; boxes get slightly rounded edges from high powers."""
    normal = place if is_round else [value * value.square().square_().square_() for value in place]
    length_p = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).sqrt_()
    lit_p = normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2]
    return lit_p.div_(length_p).mul_(_CONTRAST).add_(_BRIGHTNESS)


def _colours(bodies: Bodies, place: list[Tensor], body_p: Tensor) -> list[Tensor]:
    """Red, green and blue in 0..255 of the bodies' textures."""
    texture = bodies.texture
    waves_m33 = texture.waves * bodies.half[:, None]
    columns = torch.cat([waves_m33.flatten(1), texture.phases, *levels(texture.dark, texture.bright)], dim=1)
    of_body = _of_each(columns, body_p)
    waves, phases, middles, swings = of_body[:9], of_body[9:12], of_body[12:15], of_body[15:]
    for number, wave_p in enumerate(waves):
        phases[number // 3].addcmul_(place[number % 3], wave_p)
    wave_p = ripple(phases)
    return [middle.addcmul_(swing, wave_p) for middle, swing in zip(middles, swings, strict=True)]
