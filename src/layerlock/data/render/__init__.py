"""Ray casting of the synthetic world's scenes, batched over scenes, frames and pixels, in float64.

Every body is drawn in its own frame, scaled to the unit sphere or the unit box, where a ray is a linear function of
the pixel's place. Rays have length 1 along the camera's axis, so that the distance at which a ray meets a surface *is*
the depth. The room fills the picture and is computed at every pixel; each body is looked for only in the window of a
frame that holds it, and the pixels of all windows of all scenes make one list.

Names of tensors end in their dimensions: b scenes, n bodies of a scene, t frames, h rows, w columns; m bodies of a kind
in all scenes; i windows, r rows of windows, p pixels of windows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerlock.data.render.bodies import draw_bodies
from layerlock.data.render.room import draw_room
from layerlock.data.scene import Scenes

TAN_HALF_VIEW = math.tan(math.radians(30))
"""Half the short side of the picture is seen under 30 degrees."""


def render(scenes: Scenes, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Draws scenes: RGB, uint8 `[B, T, 3, height, width]`, and depth in metres, float64 `[B, T, height, width]`.

    A scene looks the same whichever are drawn with it.
    """
    right_w, up_h = _grid(height, width, scenes.eye_bt3)
    video_btchw, depth_bthw = draw_room(scenes, right_w, up_h)
    for is_round in (True, False):
        draw_bodies(is_round, scenes, right_w, up_h, video_btchw=video_btchw, depth_bthw=depth_bthw)
    return video_btchw, depth_bthw


def _grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres on the plane at depth 1: right `[W]` and up `[H]`."""
    step = 2 * TAN_HALF_VIEW / min(height, width)
    right_w = (torch.arange(width, dtype=like.dtype) + (0.5 - width / 2)) * step
    up_h = (torch.arange(height, dtype=like.dtype) + (0.5 - height / 2)) * -step
    return right_w, up_h
