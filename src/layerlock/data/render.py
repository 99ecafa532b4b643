"""Ray casting of the synthetic world's scenes, batched over frames and pixels, in float64.

Every body is drawn in its own frame, scaled to the unit sphere or the unit box, where a ray is a linear function of
the pixel's place: one operation per axis. Rays have length 1 along the camera's axis, so that the distance at which a
ray meets a surface *is* the depth. Only the window of the picture in which a body may appear is looked at.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerlock.data.scene import Body, Scene, Texture, Vector

TAN_HALF_VIEW = math.tan(math.radians(30))
"""Half the short side of the picture is seen under 30 degrees."""

_SHADOW = 0.55
_TINY = 1e-12  # no ray runs exactly along a wall, where its distance would be 0 / 0
_BRIGHTNESS, _CONTRAST = 0.8, 0.3


def render(scene: Scene, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Draws a scene: colours `[T, 3, height, width]` in 0..1 and depth `[T, height, width]` in metres, both float64."""
    right_w, up_h = _grid(height, width, scene.eye_t3)
    depth_thw, rgb_cthw = _draw_room(scene, right_w, up_h)
    for body in scene.bodies:
        ys, xs = _window(body, scene, right_w, up_h)
        if ys.stop > ys.start and xs.stop > xs.start:
            _draw_body(
                body, scene, right_w[xs], up_h[ys], depth_thw=depth_thw[:, ys, xs], rgb_cthw=rgb_cthw[:, :, ys, xs]
            )
    return rgb_cthw.transpose(0, 1), depth_thw


def _grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres on the plane at depth 1: right `[W]` and up `[H]`."""
    step = 2 * TAN_HALF_VIEW / min(height, width)
    right_w = (torch.arange(width, dtype=like.dtype) + (0.5 - width / 2)) * step
    up_h = (torch.arange(height, dtype=like.dtype) + (0.5 - height / 2)) * -step
    return right_w, up_h


def _rays(body: Body, scene: Scene, right_w: Tensor, up_h: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The eye (three of `[T, 1, 1]`) and the rays (three of `[T, H, W]`) in the body's frame, in units of its half."""
    inverse_t33 = body.turn_t33.transpose(1, 2) / scene.eye_t3.new_tensor(body.half)[:, None]
    eye_t3 = (inverse_t33 @ (scene.eye_t3 - body.centre_t3)[:, :, None])[:, :, 0]
    axes_t33 = inverse_t33 @ scene.view_t33
    rays = []
    for axis in range(3):
        right_t, up_t, ahead_t = (axes_t33[:, axis] + _TINY).unbind(1)
        across_t1w = right_t[:, None, None] * right_w + ahead_t[:, None, None]
        rays.append(across_t1w + up_t[:, None, None] * up_h[:, None])
    return [eye_t3[:, axis, None, None] for axis in range(3)], rays


def _draw_room(scene: Scene, right_w: Tensor, up_h: Tensor) -> tuple[Tensor, Tensor]:
    eye, rays = _rays(scene.room, scene, right_w, up_h)
    far = [(1 / ray.abs()) - origin / ray for origin, ray in zip(eye, rays, strict=True)]
    depth_thw = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    place = _places(eye, rays, depth_thw)
    square = [value * value for value in place]
    facing = [_eighth(value) for value in place]
    total_thw = facing[0] + facing[1] + facing[2]
    lit_thw = 1.0 - 0.22 * (facing[0] / total_thw) - 0.25 * (square[0] * square[1] * square[2])
    below_thw = (facing[1] / total_thw) * (0.5 - 0.5 * place[1])
    _cast_shadows(scene, place, below_thw, lit_thw)
    mix_thw = _mix(scene.room.texture, place, scene.room.half)
    rgb_cthw = torch.empty(3, *depth_thw.shape, dtype=depth_thw.dtype)
    texture, (floor_dark, floor_bright) = scene.room.texture, scene.floor
    for channel in range(3):
        wall_thw = _blend(texture.dark[channel], texture.bright[channel], mix_thw)
        floor_thw = _blend(floor_dark[channel], floor_bright[channel], mix_thw)
        torch.mul(wall_thw.lerp(floor_thw, below_thw), lit_thw, out=rgb_cthw[channel])
    return depth_thw, rgb_cthw


def _draw_body(body: Body, scene: Scene, right_w: Tensor, up_h: Tensor, *, depth_thw: Tensor, rgb_cthw: Tensor) -> None:
    """Draws a body over what is there, in place, where it is nearer."""
    eye, rays = _rays(body, scene, right_w, up_h)
    near_thw, hit_thw = (_meet_sphere if body.is_round else _meet_box)(eye, rays)
    hit_thw &= (near_thw < depth_thw) & (near_thw > 0)
    place = _places(eye, rays, near_thw)
    lit_thw = _light(body, scene, place)
    mix_thw = _mix(body.texture, place, body.half)
    for channel in range(3):
        colour_thw = _blend(body.texture.dark[channel], body.texture.bright[channel], mix_thw) * lit_thw
        rgb_cthw[channel].copy_(torch.where(hit_thw, colour_thw, rgb_cthw[channel]))
    depth_thw.copy_(torch.where(hit_thw, near_thw, depth_thw))


def _meet_sphere(eye: list[Tensor], rays: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Distance to the unit sphere, and where it is met."""
    a_thw = rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2]
    b_thw = eye[0] * rays[0] + eye[1] * rays[1] + eye[2] * rays[2]
    c_t11 = eye[0] ** 2 + eye[1] ** 2 + eye[2] ** 2 - 1
    root_thw = b_thw * b_thw - a_thw * c_t11
    return (-b_thw - root_thw.clamp(min=0).sqrt()) / a_thw, root_thw > 0


def _meet_box(eye: list[Tensor], rays: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Distance to the box from -1 to 1, and where it is met."""
    inverse = [1 / ray for ray in rays]
    middle = [-origin * value for origin, value in zip(eye, inverse, strict=True)]
    spread = [value.abs() for value in inverse]
    near = [m - s for m, s in zip(middle, spread, strict=True)]
    far = [m + s for m, s in zip(middle, spread, strict=True)]
    near_thw = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    far_thw = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    return near_thw, near_thw < far_thw


def _places(eye: list[Tensor], rays: list[Tensor], distance_thw: Tensor) -> list[Tensor]:
    return [torch.addcmul(origin, ray, distance_thw) for origin, ray in zip(eye, rays, strict=True)]


def _light(body: Body, scene: Scene, place: list[Tensor]) -> Tensor:
    """Brightness from the angle between surface and light; boxes get slightly rounded edges from high powers."""
    light_t3 = scene.eye_t3.new_tensor(scene.light) @ body.turn_t33
    normal = place if body.is_round else [value * _eighth(value) for value in place]
    length_thw = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).sqrt()
    lit = [normal[axis] * light_t3[:, axis, None, None] for axis in range(3)]
    return (lit[0] + lit[1] + lit[2]) / length_thw * _CONTRAST + _BRIGHTNESS


def _mix(texture: Texture, place: list[Tensor], half: Vector) -> Tensor:
    """How bright the texture is, 0..1, at places in units of `half`."""
    angles = []
    for wave, phase in zip(texture.waves, texture.phases, strict=True):
        angle_thw = place[0] * (wave[0] * half[0]) + phase
        angle_thw.add_(place[1], alpha=wave[1] * half[1]).add_(place[2], alpha=wave[2] * half[2])
        angles.append(angle_thw)
    angles[0].add_(angles[2].sin(), alpha=1.2)
    return 0.5 + 0.5 * (0.8 * (angles[0].sin() + angles[1].sin())).sin()


def _blend(dark: float, bright: float, mix_thw: Tensor) -> Tensor:
    return mix_thw * (bright - dark) + dark


def _cast_shadows(scene: Scene, place: list[Tensor], below_thw: Tensor, lit_thw: Tensor) -> None:
    """Darkens the floor in place straight below the bodies, fainter and wider the higher these are."""
    room = scene.room
    rows = _span((below_thw.amax(dim=(0, 2)) > 0.02).nonzero())
    x_thw, z_thw, ground_thw = place[0][:, rows], place[2][:, rows], below_thw[:, rows]
    for body in scene.bodies:
        offset_t3 = (body.centre_t3 - room.centre_t3) / scene.eye_t3.new_tensor(room.half)
        lift_t11 = (body.centre_t3[:, 1] - body.half[1])[:, None, None]
        scale_t11 = 1 / (1.6 * body.half[0] + 0.3 * lift_t11)
        across_thw = (x_thw - offset_t3[:, 0, None, None]) * (room.half[0] * scale_t11)
        along_thw = (z_thw - offset_t3[:, 2, None, None]) * (room.half[2] * scale_t11)
        spread_thw = (across_thw * across_thw).addcmul_(along_thw, along_thw).add_(1)
        spread_thw = ground_thw / (spread_thw * spread_thw)
        lit_thw[:, rows] *= 1 - spread_thw * (_SHADOW / (1 + lift_t11))


def _eighth(value_thw: Tensor) -> Tensor:
    """The eighth power."""
    second_thw = value_thw * value_thw
    fourth_thw = second_thw * second_thw
    return fourth_thw * fourth_thw


def _window(body: Body, scene: Scene, right_w: Tensor, up_h: Tensor) -> tuple[slice, slice]:
    """Rows and columns outside of which the body is seen in no frame: bounds of its enclosing sphere."""
    radius = max(body.half) if body.is_round else math.sqrt(sum(value**2 for value in body.half))
    seen_t3 = ((body.centre_t3 - scene.eye_t3)[:, None, :] @ scene.view_t33)[:, 0]
    ahead_t = seen_t3[:, 2]
    if float(ahead_t.min()) <= radius + 0.05:
        return slice(0, len(up_h)), slice(0, len(right_w))
    # tangents of a sphere in the plane of one image axis and the view axis
    reach_t = ahead_t**2 - radius**2

    def bounds(side_t: Tensor) -> tuple[float, float]:
        root_t = radius * (side_t**2 + reach_t).sqrt()
        low, high = (side_t * ahead_t - root_t) / reach_t, (side_t * ahead_t + root_t) / reach_t
        return float(low.min()), float(high.max())

    left, right = bounds(seen_t3[:, 0])
    bottom, top = bounds(seen_t3[:, 1])
    columns = ((right_w >= left) & (right_w <= right)).nonzero()
    rows = ((up_h >= bottom) & (up_h <= top)).nonzero()
    return _span(rows), _span(columns)


def _span(places: Tensor) -> slice:
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
