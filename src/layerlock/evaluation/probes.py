"""Small probes of frozen features: an attention readout for labels, a linear map per token for dense targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlock import draws
from layerlock.errors import LayerlockError
from layerlock.model.readout import AttentionReadout
from layerlock.model.vit import initialize


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """How an attention probe is trained: AdamW, warm-up and cosine, on features that are computed once."""

    channels: int = 128
    heads: int = 4
    steps: int = 600
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.1


def train_attention_probe(
    features_vnd: Tensor, label_v: Tensor, *, times: int, classes: int, seed: int, config: ReadoutConfig | None = None
) -> AttentionReadout:
    """An attention readout with one query, trained on frozen features `[V, N, D]` (`times`: how many t)."""
    config = config or ReadoutConfig()
    readout = AttentionReadout(
        features_vnd.shape[-1], times=times, channels=config.channels, heads=config.heads, outputs=classes
    )
    initialize(readout, draws.generator(seed, "probe"))
    optimizer = torch.optim.AdamW(readout.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    warmup = max(1, round(config.warmup * config.steps))
    for step in range(config.steps):
        rate = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate
        row_b = draws.bits(seed, "probe batch", torch.tensor([step]), config.batch)[0] % len(label_v)
        loss = F.cross_entropy(readout(features_vnd[row_b].float())[:, 0], label_v[row_b])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return readout


@torch.no_grad()
def predict_labels(readout: AttentionReadout, features_vnd: Tensor) -> Tensor:
    """The most likely class of each clip: int64 `[V]`."""
    return torch.cat([readout(part.float())[:, 0].argmax(1) for part in features_vnd.split(128)])


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """One linear map of standardised features, `[.., D]` to `[.., P]`, the same for every token, beside a mean."""

    model: Any
    """scikit-learn's scaler and ridge regression"""
    mean_np: Tensor

    def __call__(self, features_vnd: Tensor) -> Tensor:
        """Predictions `[V, N, P]`."""
        rows = self.model.predict(features_vnd.flatten(0, 1).double().numpy())
        return torch.from_numpy(rows).float().view(*features_vnd.shape[:2], -1) + self.mean_np


def fit_linear_probe(features_vnd: Tensor, target_vnp: Tensor, *, ridge: float = 1e-3) -> LinearProbe:
    """Ridge regression of a target's deviation from its mean over clips at each position.

    So a probe of features that say nothing predicts that mean. `ridge` is relative to the features' own variance.
    Raises LayerlockError where scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise LayerlockError("linear probes need scikit-learn (pip install 'layerlock[evaluate]')") from None

    mean_np = target_vnp.float().mean(0)
    x, y = (rows.flatten(0, 1).double().numpy() for rows in (features_vnd, target_vnp.float() - mean_np))
    model = make_pipeline(StandardScaler(), Ridge(alpha=ridge * len(x), fit_intercept=False))
    return LinearProbe(model=model.fit(x, y), mean_np=mean_np)


def absolute_relative_error(predicted: Tensor, target: Tensor) -> Tensor:
    """AbsRel of each clip: the mean of |predicted - target| / (target + 1e-6) over all but the first dimension
    (LayerLock A.4.3).
    """
    return ((predicted - target).abs() / (target + 1e-6)).flatten(1).mean(1)
