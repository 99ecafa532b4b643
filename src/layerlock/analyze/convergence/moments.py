"""What a baseline was like at some steps: norms from its checkpoints, features of a fixed probe batch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerlock import draws
from layerlock.config import Config
from layerlock.data import batches, crop_and_flip, open_source
from layerlock.encoders.run import checkpoints_of, open_checkpoint
from layerlock.learn.targets import PatchTarget
from layerlock.model.patches import patchify
from layerlock.train import checkpoint
from layerlock.train.folder import RunFolder

EPSILON = 1e-8
"""torch's, of AdamW"""
TOKENS = 64
"""of each probe clip, at most, at the same random positions, whose features are kept"""
_PART = re.compile(r"vit\.(?:embed\.|position$|blocks\.(\d+)\.)")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Clips that come after those of the run, uint8 `[B, T, 3, H, W]`, and positions `[S]` of some of their tokens."""

    video_btchw: Tensor
    position_s: Tensor

    def target(self, target: PatchTarget, run: Path, step: int) -> Tensor:
        """What the baseline predicts of these tokens, `[B, S, P]`, float32."""
        vit = open_checkpoint(run, step).vit
        return target.of(patchify(self.video_btchw, vit.config.patch)[:, self.position_s], vit).float()


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A baseline after `step` updates.

    Sums of squares are of the patch projection (with learned positions) and of each block, in depth order: of weights,
    of AdamW's last update over its learning rate (without weight decay), of the running root mean square of gradients;
    the last two are empty with another optimizer. `features` are `[B, S, D]` by depth, float32.
    """

    step: int
    counts: Sequence[int]
    weights: Sequence[float]
    updates: Sequence[float]
    gradients: Sequence[float]
    features: Mapping[int, Tensor]

    def norm(self, of: Sequence[float], layer: int) -> float:
        """The norm of all down to block `layer`, the patch projection included. ValueError where it is not known."""
        if not of:
            raise ValueError("only AdamW keeps what this is computed from")
        return math.sqrt(sum(of[: layer + 1]))


def open_probe(config: Config, clips: int) -> Probe:
    """The clips that come after those of a run of `config`, as frozen encoders see them: cropped, colours unchanged."""
    saved, workers = RunFolder(config.out).index, config.run.workers
    source = open_source(config.data, config.clip, config.seed, root=config.data_root, workers=workers, saved=saved)
    together = config.clip.per_decode
    after = -(-config.steps * config.batch // (clips * together))
    stream = batches(source, batch=clips * together, start=after, stop=after + 1, workers=min(workers, 1))
    with closing(stream) as loader:
        video_btchw = crop_and_flip(next(loader).slice(0, clips * together, together))
    order_n = torch.randperm(config.tokens, generator=draws.generator(0, "analyze/convergence"))
    return Probe(video_btchw=video_btchw, position_s=order_n[:TOKENS].sort().values)


def read_moment(
    run: Path, step: int, probe: Probe, layers: Sequence[int], *, betas: tuple[float, float], device: torch.device
) -> Moment:
    """The moment of a checkpoint of a run. Raises LayerlockError for one that is missing or damaged."""
    encoder = open_checkpoint(run, step).to(device)
    shown = probe.video_btchw.to(device)
    position_s = probe.position_s.to(device)
    read = encoder.forward_intermediates(shown, list(layers))
    features = {layer: x_bnd[:, position_s].float().cpu() for layer, x_bnd in zip(layers, read, strict=True)}
    tensors = checkpoint.read(checkpoints_of(run / "checkpoints")[step]).tensors
    parts = encoder.depth + 1
    sums = {name: [0.0] * parts for name in ("weights", "updates", "gradients")}
    counts = [0] * parts
    for name, weight in tensors.items():
        found = _PART.match(name.removeprefix("model/"))
        if not name.startswith("model/") or found is None:
            continue
        part = 0 if found[1] is None else int(found[1]) + 1
        counts[part] += weight.numel()
        sums["weights"][part] += float(weight.double().square().sum())
        own = f"optim/{name.removeprefix('model/')}/"
        if f"{own}exp_avg_sq" in tensors:
            age = float(tensors[f"{own}step"])
            mean = tensors[f"{own}exp_avg"].double() / (1 - betas[0] ** age)
            square = tensors[f"{own}exp_avg_sq"].double() / (1 - betas[1] ** age)
            sums["updates"][part] += float((mean / (square.sqrt() + EPSILON)).square().sum())
            sums["gradients"][part] += float(square.sum())
    known = any(sums["gradients"])
    return Moment(
        step=step,
        counts=counts,
        weights=sums["weights"],
        updates=sums["updates"] if known else (),
        gradients=sums["gradients"] if known else (),
        features=features,
    )
