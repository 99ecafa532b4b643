"""Centring and whitening of vectors of videos, so that their cosines tell videos apart.

Mean-pooled features share most of what they are: any two videos have a cosine near 1. Less their mean, and with the
same variance in every direction, what differs between videos decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from layerlock.errors import LayerlockError

PART = 2**14
"""vectors at a time, which alone are in memory where the others are mapped from a file"""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """`(x - mean) map`, of vectors `[V, D]`, or of those after each of K blocks, `[V, K, D]`."""

    mean_d: Tensor
    """float64 `[D]` or `[K, D]`"""
    map_dd: Tensor
    """float64 `[D, D]` or `[K, D, D]`"""

    def apply(self, x_vd: Tensor) -> Tensor:
        """The same vectors whitened, float32."""
        centred_vd = x_vd.double() - self.mean_d
        return (centred_vd.transpose(0, -2) @ self.map_dd).transpose(0, -2).float()

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of vectors keeps of it, float64."""
        return {"mean": self.mean_d.numpy(), "map": self.map_dd.numpy()}

    @classmethod
    def load(cls, path: Path, facts: Mapping[str, object]) -> Self:
        """The one that was learned from the vectors of an .npz file. Raises LayerlockError where there is none, and
        where one of the `facts` of the file (encoder, depth) is another.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                kept = {name: file[name] for name in (*facts, "mean", "map")}
        except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
            raise LayerlockError(f"{path}: holds no whitening ({error})") from None
        for name, value in facts.items():
            if (theirs := kept[name].tolist()) != value:
                raise LayerlockError(f"{path}: its vectors are of another {name}: {theirs}, here {value}")
        return cls(mean_d=torch.from_numpy(kept["mean"]), map_dd=torch.from_numpy(kept["map"]))


def whitening(x_vd: Tensor) -> Whitening:
    """The symmetric map (ZCA) after which vectors `[V, D]` like these have covariance one, as far as V videos tell; of
    `[V, K, D]` one for each k.

    The covariance is that of Ledoit and Wolf (2004): shrunk towards a multiple of the identity, the more so the fewer
    videos there are. ValueError where nothing varies or something is not finite.
    """
    if x_vd.ndim == 3:
        each_k = [whitening(x_vd[:, k]) for k in range(x_vd.shape[1])]
        return Whitening(
            mean_d=torch.stack([each.mean_d for each in each_k]), map_dd=torch.stack([each.map_dd for each in each_k])
        )
    if not all(bool(part.isfinite().all()) for part in x_vd.split(PART)):
        raise ValueError("some vectors are not finite")
    mean_d = torch.stack([part.double().sum(0) for part in x_vd.split(PART)]).sum(0) / len(x_vd)
    covariance_dd = _ledoit_wolf(x_vd, mean_d)
    value_d, vector_dd = torch.linalg.eigh(covariance_dd)
    if value_d[-1] <= 1e-12 * (1 + mean_d.square().mean()):
        raise ValueError("all vectors are the same")
    value_d = value_d.clamp(min=1e-9 * float(value_d[-1]))
    return Whitening(mean_d=mean_d, map_dd=(vector_dd * value_d.rsqrt()) @ vector_dd.T)


def _ledoit_wolf(x_vd: Tensor, mean_d: Tensor) -> Tensor:
    """The shrunk covariance `[D, D]`, as scikit-learn computes it too."""
    videos, width = x_vd.shape
    covariance_dd = torch.zeros(width, width, dtype=torch.float64, device=x_vd.device)
    fourth = torch.zeros((), dtype=torch.float64, device=x_vd.device)
    for part in x_vd.split(PART):
        centred_vd = part.double() - mean_d
        covariance_dd += centred_vd.T @ centred_vd / videos
        fourth += centred_vd.square().sum(1).square().sum() / videos
    scale = covariance_dd.diagonal().mean()
    distance = (covariance_dd.square().sum() - width * scale**2) / width
    noise = torch.minimum((fourth - covariance_dd.square().sum()) / (width * videos), distance)
    share = noise / distance if distance > 0 else torch.ones(())
    identity_dd = torch.eye(width, dtype=covariance_dd.dtype, device=covariance_dd.device)
    return (1 - share) * covariance_dd + share * scale * identity_dd
