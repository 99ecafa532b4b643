"""What a loss predicts, as data: a pure function of a clip's patches, or features of a network.

A target states its own name, width, unit and picture; who computes features is a `Network` (`learn/networks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from layerlock.model.separate import normalized_patches
from layerlock.model.vit import ViT, ViTConfig

MODEL, TEACHER = "model", "teacher"
"""the networks that a learner has of its own: the model that learns, and the running average of its weights"""

OWN = (MODEL, TEACHER)

Source = tuple[str, int]
"""a network by its name and one of its blocks, counted from one, or `LAST`: the key of a latent"""
LAST = -1
"""the last block of a frozen encoder, whatever its number is"""

PatchKind = Literal["pixels", "normalized", "motion"]

_CHANGE, _STILL = 3.0, 0.6
"""factors of a tubelet's changes over time and of its mean: of the energy of pixels 8 % is change"""

_LEAST_CHANGE = 1e-8
"""of pixels in [0, 1], squared: far below what one step of one value in 255 makes of a frame"""


@dataclass(frozen=True)
class PatchTarget:
    """A pure function of a clip's patches: `pixels` in the model's units, `normalized` with mean 0 and deviation 1 in
    each patch (VideoMAE), `motion`: the cosine transform of each tubelet over its frames, changes weighed more than the
    mean, which is an invertible map of the pixels.
    """

    kind: PatchKind = "pixels"

    @property
    def name(self) -> str:
        """Its label: `pixels`, whether normalised or not, or `motion`."""
        return "pixels" if self.kind == "normalized" else self.kind

    @property
    def unit(self) -> str:
        """What its numbers are, in words; empty for the model's own units."""
        return {
            "pixels": "",
            "normalized": "of each patch less its mean and over its deviation",
            "motion": "of the cosine transform over a tubelet's frames",
        }[self.kind]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The features that it is made of: none."""
        return ()

    def problems(self) -> list[str]:
        """What is wrong with it by itself, a line each."""
        kinds = get_args(PatchKind)
        return [] if self.kind in kinds else [f"kind: {self.kind!r} is none of {', '.join(kinds)}"]

    def of(self, patches_bqp: Tensor, vit: ViT) -> Tensor:
        """The target `[B, Q, P]`, float32, from patches, uint8 or in [0, 1]."""
        if self.kind == "normalized":
            return normalized_patches(patches_bqp)
        pixels = vit.normalize(patches_bqp)
        return _along_time(pixels.float(), _transform(vit.config)) if self.kind == "motion" else pixels

    def pixels(self, value_bqp: Tensor, patches_bqp: Tensor, model: ViTConfig) -> Tensor:
        """What a prediction `[B, Q, P]` says of the pixels, in [0, 1]; with what normalisation took from `patches_bqp`.

        The inverse of `of`.
        """
        value_bqp = value_bqp.float()
        if self.kind == "normalized":
            own = patches_bqp.float() / 255 if patches_bqp.dtype == torch.uint8 else patches_bqp.float()
            std, mean = torch.std_mean(own.unflatten(-1, (-1, 3)), dim=-2, keepdim=True)
        else:
            std, mean = torch.tensor(model.std), torch.tensor(model.mean)
        if self.kind == "motion":
            value_bqp = _along_time(value_bqp, torch.linalg.inv(_transform(model)))
        return (value_bqp.unflatten(-1, (-1, 3)) * std + mean).flatten(-2)


@dataclass(frozen=True)
class FeatureTarget:
    """Features of a network on the clip: the output of one block, or the mean of several, each standardised first.

    `network` is `model`, `teacher` (the running average of the model) or any encoder by its name (docs/encoders.md),
    frozen; of such a one no `blocks` are its last. Blocks of the model that still learn are asked for by `live`;
    `gradient` lets gradients of the loss into them too. `normalized` gives each token a mean of 0 and a deviation of 1
    over its width (V-JEPA).
    """

    blocks: tuple[int, ...] = ()
    """counted from one"""
    network: str = MODEL
    live: bool = False
    normalized: bool = False
    gradient: bool = False
    standardized: bool = False
    """each dimension less its mean and over its deviation, as the clips after the switch have them"""

    @property
    def name(self) -> str:
        """Its label: `h3` of the model, `t3` of its average, `e3`, `e_last` of an encoder; `h2_4` of several blocks."""
        sign = {MODEL: "h", TEACHER: "t"}.get(self.network, "e")
        return sign + ("_".join(map(str, self.blocks)) or "_last")

    @property
    def unit(self) -> str:
        """What its numbers are, in words."""
        return "of features"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The features that it is made of."""
        return tuple((self.network, block) for block in self.blocks or (LAST,))

    def problems(self) -> list[str]:
        """What is wrong with it by itself, a line each."""
        problems = []
        if not self.network:
            problems.append("network: it is empty; name model, teacher or an encoder (docs/encoders.md)")
        rising = list(self.blocks) == sorted(set(self.blocks)) and min(self.blocks, default=1) >= 1
        if not rising or (not self.blocks and self.network in OWN):
            problems.append(f"blocks: {self.blocks} are not rising numbers from 1 on")
        if self.live and self.network != MODEL:
            problems.append(f"live: only blocks of the model learn, not those of {self.network}")
        if self.gradient and not self.live:
            problems.append("gradients go into live targets alone")
        return problems

    def of(self, features: list[Tensor]) -> Tensor:
        """The target `[B, Q, D]`, float32, from the features of `sources`."""
        whole = [h.float() if self.gradient else h.detach().float() for h in features]
        if self.normalized or len(whole) > 1:
            whole = [torch.nn.functional.layer_norm(h, h.shape[-1:]) for h in whole]
        return whole[0] if len(whole) == 1 else torch.stack(whole).mean(0)


def change_weights(patches_bqp: Tensor, frames: int, share: float) -> Tensor:
    """A weight `[B, Q]`, float32, for the error of each patch: `1 - share + share * e / mean(e)`, with a mean of 1.

    `e` is how much the patch changes: the mean squared difference of neighbouring ones of its `frames` frames, two or
    more; its mean is over all patches given. Where nothing changes all weights are 1. Our own. Costs about three
    operations for each of the P values, which is not counted.
    """
    value_bqtv = patches_bqp.float().unflatten(-1, (frames, -1))
    value_bqtv = value_bqtv / 255 if patches_bqp.dtype == torch.uint8 else value_bqtv
    change_bq = value_bqtv.diff(dim=2).square().mean((2, 3)) + _LEAST_CHANGE
    return 1 - share + share * change_bq / change_bq.mean()


def target_from(values: Mapping[str, Any]) -> Target:
    """The target that JSON holds, field by field. TypeError for fields that it has not."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return PatchTarget(**fields) if "kind" in fields else FeatureTarget(**fields)


def of_patches(label: str) -> bool:
    """Whether the label of a loss is that of a patch target, at whatever depth."""
    return label.partition("@")[0] in {PatchTarget(kind).name for kind in get_args(PatchKind)}


Target = PatchTarget | FeatureTarget
PIXELS = PatchTarget()


def _transform(model: ViTConfig) -> Tensor:
    """The orthonormal cosine transform over the frames of a tubelet, `[t, t]`, its rows scaled."""
    t = model.patch[0]
    k, n = torch.arange(t, dtype=torch.float64)[:, None], torch.arange(t, dtype=torch.float64)
    rows = torch.cos(math.pi * (n + 0.5) * k / t) * math.sqrt(2 / t)
    rows[0] /= math.sqrt(2)
    scale = torch.full((t, 1), _CHANGE, dtype=torch.float64)
    scale[0] = _STILL
    return (rows * scale).float()


def _along_time(value_bqp: Tensor, matrix_tt: Tensor) -> Tensor:
    """A linear map of each patch's frames; values of a patch are in the order t, h, w, 3."""
    frames = value_bqp.unflatten(-1, (len(matrix_tt), -1))
    return torch.einsum("st,bqtv->bqsv", matrix_tt.to(frames), frames).flatten(-2)
