"""LayerLock's loss written a second time, from its definition, in float64 and without any of the learner's code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerlock import draws
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Tap
from layerlock.learn.targets import FeatureTarget

Weights = dict[str, Tensor]


def weights_of(learner: Learner) -> Weights:
    return {name: value.detach().double().clone().requires_grad_() for name, value in learner.named_parameters()}


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def turn(x: Tensor, places: list[list[float]], fractions: tuple[float, ...]) -> Tensor:
    """Pairs as complex numbers, multiplied by e^(i angle); `x` is `[K, D]`, its tokens stand at `places`."""
    parts, at = [], 0
    for axis, fraction in enumerate(fractions):
        p = math.floor(fraction * x.shape[-1] / 2)
        pair = torch.complex(x[:, at : at + p], x[:, at + p : at + 2 * p])
        angle = torch.tensor([[place[axis] * 10_000 ** (-i / p) for i in range(p)] for place in places]).double()
        turned = pair * torch.polar(torch.ones_like(angle), angle)
        parts += [turned.real, turned.imag]
        at += 2 * p
    return torch.cat([*parts, x[:, at:]], dim=-1)


class Oracle:
    """One clip at a time, token lists in place of batches."""

    def __init__(self, learner: Learner) -> None:
        self.w, self.config, self.first = weights_of(learner), learner.vit.config, learner.decoder.first
        t, h, w = learner.vit.grid
        self.places = [[float(a), float(b), float(c)] for a in range(t) for b in range(h) for c in range(w)]
        self.seed, self.keep = learner.seed, round(len(self.places) * learner.masking.keep)

    def block(self, number: int, x: Tensor, tokens: list[int]) -> Tensor:
        name, heads = f"vit.blocks.{number}", self.config.heads
        y = turn(norm(x, self.w, f"{name}.norm1"), [self.places[i] for i in tokens], self.config.rope_fractions)
        mixed = []
        for q, k, v in zip(
            *(part.chunk(heads, -1) for part in dense(y, self.w, f"{name}.qkv").chunk(3, -1)), strict=True
        ):
            mixed.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        x = x + dense(torch.cat(mixed, -1), self.w, f"{name}.proj")
        y = dense(norm(x, self.w, f"{name}.norm2"), self.w, f"{name}.fc1")
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return x + dense(y, self.w, f"{name}.fc2")

    def patches(self, video_tchw: Tensor) -> Tensor:
        pt, ph, pw = self.config.patch
        cut = [video_tchw[int(t) * pt :, :, int(h) * ph :, int(w) * pw :][:pt, :, :ph, :pw] for t, h, w in self.places]
        return torch.stack([x.permute(0, 2, 3, 1).reshape(-1) for x in cut]).double() / 255

    def subset(self, purpose: str, index: int, count: int) -> list[int]:
        values = draws.bits(self.seed, purpose, torch.tensor([index]), len(self.places))[0].tolist()
        return sorted(sorted(range(len(values)), key=values.__getitem__)[:count])

    def decode(self, patches: Tensor, index: int, queries: list[int]) -> Tensor:
        context = self.subset("context", index, self.keep)
        x = dense(patches[context], self.w, "vit.embed")
        for number in range(self.first):
            x = self.block(number, x, context)
        ones = torch.ones(len(queries), self.config.width, dtype=torch.float64)
        z = turn(ones, [self.places[i] for i in queries], self.config.rope_fractions)
        y = torch.cat([z, x])
        for number in range(self.first, self.config.depth):
            y = self.block(number, y, queries + context)
        return y[: len(queries)]

    def latent(self, patches: Tensor, layer: int, tokens: list[int]) -> Tensor:
        h = dense(patches[tokens], self.w, "vit.embed")
        for number in range(layer):
            h = self.block(number, h, tokens)
        return h

    def loss(self, video_tchw: Tensor, index: int, tap: Tap, decode_all: bool = False) -> Tensor:
        """Mean squared error of one clip for one tap; `decode_all`: another tap of the stage wants all positions."""
        patches, every = self.patches(video_tchw), list(range(len(self.places)))
        layer = tap.target.blocks[0] if isinstance(tap.target, FeatureTarget) else 0
        subset = self.subset("latent subset", index, round(len(every) * tap.fraction))
        chosen = every if tap.fraction == 1 else subset
        decoded = self.decode(patches, index, every)[chosen] if decode_all else self.decode(patches, index, chosen)
        predicted = dense(decoded, self.w, f"heads.{f'h{layer}' if layer else 'pixels'}_at_{self.first}")
        if layer == 0:
            target = patches
        elif tap.full_clip:
            target = self.latent(patches, layer, every)[chosen]
        else:
            target = self.latent(patches, layer, chosen if tap.fraction < 1 else every)
        constant = not (isinstance(tap.target, FeatureTarget) and tap.target.gradient)
        return (predicted - (target.detach() if constant else target)).square().mean()
