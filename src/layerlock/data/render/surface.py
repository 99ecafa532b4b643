"""What the room and the bodies have in common: their own frames and their textures."""

from __future__ import annotations

from torch import Tensor

from layerlock.data.scene import Bodies

_TINY = 1e-12  # no ray runs exactly along a wall, where its distance would be 0 / 0
_SOFTENING, _SWIRL = 0.8, 1.2


def seen_from(bodies: Bodies, eye_t3: Tensor, view_t33: Tensor) -> tuple[Tensor, Tensor]:
    """The eye `[..., T, 3]` and the camera's axes (columns of `[..., T, 3, 3]`) in the bodies' frames, in halves."""
    inverse_t33 = bodies.turn_t33.mT / bodies.half[..., None, :, None]
    return (inverse_t33 @ (eye_t3 - bodies.centre_t3)[..., None])[..., 0], inverse_t33 @ view_t33 + _TINY


def ripple(angles: list[Tensor]) -> Tensor:
    """A texture's wave, -1..1, from the angles of its three waves, which it overwrites."""
    angles[0].add_(angles[2].sin_(), alpha=_SWIRL)
    return angles[0].sin_().add_(angles[1].sin_()).mul_(_SOFTENING).sin_()


def levels(dark: Tensor, bright: Tensor) -> tuple[Tensor, Tensor]:
    """A texture's colour in 0..255 where its wave is 0, and what the wave adds where it is 1."""
    return (dark + bright) * (255 / 2), (bright - dark) * (255 / 2)
