"""The attention readout of the 4DS tasks (LayerLock A.4): learned queries attend once to frozen features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock.model.vit import Dense, Norm


class AttentionReadout(nn.Module):
    """Features `[B, N, D]` in token order (t, h, w) to outputs `[B, queries, outputs]`.

    Keys and values: LayerNorm(features) + a learned temporal position, each through a Dense to `channels`. Learned
    queries are used as they are. One cross-attention; `x = query + Dense(attention)`; `x + MLP(LayerNorm(x))`; a Dense
    to `outputs`.
    """

    def __init__(self, width: int, *, times: int, channels: int, heads: int, outputs: int, queries: int = 1) -> None:
        super().__init__()
        self.times, self.heads = times, heads
        self.norm = Norm(width)
        self.time = nn.Parameter(torch.zeros(times, 1, width))
        self.query = nn.Parameter(torch.zeros(queries, channels))
        self.key = Dense(width, channels)
        self.value = Dense(width, channels)
        self.mix = Dense(channels, channels)
        self.norm_mlp = Norm(channels)
        self.fc1 = Dense(channels, 4 * channels)
        self.fc2 = Dense(4 * channels, channels)
        self.out = Dense(channels, outputs)

    def forward(self, features_bnd: Tensor) -> Tensor:
        b, n, d = features_bnd.shape
        y = self.norm(features_bnd).view(b, self.times, n // self.times, d) + self.time.to(features_bnd.dtype)
        y_bnd = y.view(b, n, d)
        query = self.query.to(features_bnd.dtype).expand(b, *self.query.shape)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, self.key(y_bnd), self.value(y_bnd))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = query + self.mix(attended)
        return self.out(x + self.fc2(F.gelu(self.fc1(self.norm_mlp(x)), approximate="tanh")))
