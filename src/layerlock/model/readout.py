"""Readouts of frozen features: the attention readout of the 4DS tasks (LayerLock A.4), and beside it efficient probing,
linear ones, and ones that are solved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock.model.attention import attend
from layerlock.model.vit import Dense, Norm

EPS = 1e-6
"""of the LayerNorm that a readout begins with"""


def standardized(features_bnd: Tensor) -> Tensor:
    """Each token less its mean and over its deviation, in the type it came in: the part of a readout's LayerNorm that
    has no weights. Readouts of the same features share it.
    """
    return F.layer_norm(features_bnd.float(), features_bnd.shape[-1:], eps=EPS).to(features_bnd.dtype)


class AttentionReadout(nn.Module):
    """Features `[B, N, D]` in token order (t, h, w) to outputs `[B, queries, outputs]`.

    Keys and values: LayerNorm(features) + a learned temporal position, each through a Dense to `channels`. Learned
    queries are used as they are. One cross-attention; `x = query + Dense(attention)`; `x + MLP(LayerNorm(x))`; a Dense
    to `outputs`.
    """

    def __init__(self, width: int, *, times: int, channels: int, heads: int, outputs: int, queries: int = 1) -> None:
        super().__init__()
        self.times, self.heads = times, heads
        self.norm = Norm(width, EPS)
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
        return self.read(standardized(features_bnd))

    def read(self, x_bnd: Tensor) -> Tensor:
        """The same, of features that went through `standardized`."""
        return self.out(self.pooled(x_bnd))

    def pooled(self, x_bnd: Tensor) -> Tensor:
        """What the last Dense takes, `[B, queries, channels]`."""
        queries, channels = self.query.shape
        few = self.heads * queries < channels
        attended_bqc = self._attended_by_few(x_bnd) if few else self._attended(x_bnd)
        x = self.query.to(x_bnd.dtype) + self.mix(attended_bqc)
        return x + self.fc2(self.fc1(self.norm_mlp(x), "tanh"))

    def _attended(self, x_bnd: Tensor) -> Tensor:
        """Attention `[B, Q, C]`.

        Scale and shift of the LayerNorm and the position in time go through the weights, not through every token:
        features need no gradient then.
        """
        b, n, _ = x_bnd.shape
        dtype = x_bnd.dtype
        weight_ed = torch.cat([self.key.weight, self.value.weight])
        bias_e = torch.cat([self.key.bias, self.value.bias])
        at_time_te = (self.time[:, 0] + self.norm.bias) @ weight_ed.T + bias_e
        y_bne = F.linear(x_bnd, (weight_ed * self.norm.weight).to(dtype))
        y_btme = y_bne.unflatten(1, (self.times, n // self.times)) + at_time_te[:, None].to(dtype)
        query_bqc = self.query.to(dtype).expand(b, *self.query.shape)
        k_bnc, v_bnc = y_btme.flatten(1, 2).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query_bqc, k_bnc, v_bnc))
        return attend(q, k, v).transpose(1, 2).flatten(2)

    def _attended_by_few(self, x_bnd: Tensor) -> Tensor:
        """The same in another order of products, which never makes keys and values of all tokens.

        A query goes through the key's weights to the features, `q . (K y) = (K' q) . y`, and features are averaged
        before they go through the value's. The key's bias adds the same to all tokens, which a softmax does not see.
        """
        heads, queries = self.heads, len(self.query)
        query_hqc = self.query.unflatten(1, (heads, -1)).transpose(0, 1)
        scale = query_hqc.shape[-1] ** -0.5
        probe_rd = (query_hqc * scale @ self.key.weight.unflatten(0, (heads, -1))).flatten(0, 1)
        mean_bhqd = attended_means(x_bnd, probe_rd, self.norm, self.time).unflatten(1, (heads, queries))
        value_bhqc = mean_bhqd @ self.value.weight.unflatten(0, (heads, -1)).transpose(1, 2)
        return (value_bhqc.transpose(1, 2).flatten(2) + self.value.bias).to(x_bnd.dtype)


def attended_means(x_bnd: Tensor, probe_rd: Tensor, norm: Norm, time_t1d: Tensor) -> Tensor:
    """Means `[B, R, D]` of normalised tokens with their position in time, float32; the weights of each are the softmax
    of their products with one of the probes. Scale and shift of `norm` and the position go through the probes.
    """
    times = len(time_t1d)
    at_time_rt = probe_rd @ (time_t1d[:, 0] + norm.bias).T
    score_bnr = (x_bnd @ (probe_rd * norm.weight).T.to(x_bnd.dtype)).float()
    score_brtm = score_bnr.transpose(1, 2).unflatten(2, (times, -1)) + at_time_rt[..., None]
    weight_brn = score_brtm.flatten(2).softmax(-1)
    mean_brd = (weight_brn.to(x_bnd.dtype) @ x_bnd).float() * norm.weight + norm.bias
    return mean_brd + weight_brn.unflatten(2, (times, -1)).sum(-1) @ time_t1d[:, 0]


class EfficientReadout(nn.Module):
    """Efficient probing (Psomas et al., ICLR 2026, arXiv 2506.10178): features `[B, N, D]` in token order (t, h, w) to
    outputs `[B, 1, outputs]`.

    Keys are the tokens: LayerNorm(features) + a learned position in time. Values are a Dense without bias to
    `channels`, split into one part for each learned query, which averages it by its attention. The parts are
    concatenated and go through a Dense to `outputs`, without an MLP.
    """

    def __init__(self, width: int, *, times: int, channels: int, queries: int, outputs: int) -> None:
        super().__init__()
        self.norm = Norm(width, EPS)
        self.time = nn.Parameter(torch.zeros(times, 1, width))
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.value = Dense(width, channels, bias=False)
        self.out = Dense(channels, outputs)

    def forward(self, features_bnd: Tensor) -> Tensor:
        return self.read(standardized(features_bnd))

    def read(self, x_bnd: Tensor) -> Tensor:
        """The same, of features that went through `standardized`."""
        return self.out(self.pooled(x_bnd))

    def pooled(self, x_bnd: Tensor) -> Tensor:
        """What the last Dense takes, `[B, 1, channels]`."""
        queries, width = self.query.shape
        mean_bqd = attended_means(x_bnd, self.query * width**-0.5, self.norm, self.time)
        value_bqc = torch.einsum("bqd,qcd->bqc", mean_bqd, self.value.weight.unflatten(0, (queries, -1)))
        return value_bqc.flatten(1)[:, None].to(x_bnd.dtype)


class LinearReadout(nn.Module):
    """LayerNorm, then one Dense, of features `[B, N, D]`: of their mean (`pooled`), `[B, 1, outputs]`, or of each
    token, `[B, N, outputs]`.
    """

    def __init__(self, width: int, *, outputs: int, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.norm = Norm(width, EPS)
        self.out = Dense(width, outputs)

    def forward(self, features_bnd: Tensor) -> Tensor:
        return self.read(standardized(features_bnd))

    def read(self, x_bnd: Tensor) -> Tensor:
        """The same, of features that went through `standardized`."""
        x = x_bnd.mean(1, keepdim=True) if self.pooled else x_bnd
        return self.out(x * self.norm.weight.to(x.dtype) + self.norm.bias.to(x.dtype))


WAVES = 4
"""cosines over time that tokens are pooled by, of those that there are: the mean, then ever faster changes"""


def over_time(x_bnd: Tensor, times: int, *, appearance: bool = True) -> Tensor:
    """What a clip's tokens `[B, N, D]` in order (t, h, w) are like and how they change, float32 `[B, 2 K D]`.

    At each place the first K = min(4, `times`) coefficients of an orthonormal cosine transform over time (DCT-II); of
    each their mean and their deviation over places. Without `appearance` the first, which is of what does not change,
    is left out: `[B, 2 (K - 1) D]`.
    """
    wave_k1 = torch.arange(0 if appearance else 1, min(WAVES, times), device=x_bnd.device)[:, None]
    cosine_kt = torch.cos(torch.pi / times * wave_k1 * (torch.arange(times, device=x_bnd.device) + 0.5))
    cosine_kt = cosine_kt / cosine_kt.norm(dim=1, keepdim=True)
    x_btmd = x_bnd.float().unflatten(1, (times, -1))
    if not appearance:
        x_btmd = x_btmd - x_btmd[:, :1]  # cosines sum to 0 but for rounding, which would let appearance through
    x_bkmd = torch.einsum("kt,btmd->bkmd", cosine_kt, x_btmd)
    return torch.stack([x_bkmd.mean(2), x_bkmd.std(2, correction=0)], 2).flatten(1)


class SolvedReadout(nn.Module):
    """One Dense without any training by steps: of tokens as `over_time` pools them (`pooled`), `[B, 1, outputs]`, or of
    each token, `[B, N, outputs]`.
    """

    def __init__(self, width: int, *, times: int, outputs: int, pooled: bool, appearance: bool = True) -> None:
        super().__init__()
        self.times, self.pooled, self.appearance = times, pooled, appearance
        waves = min(WAVES, times) - (not appearance)
        self.out = Dense(2 * waves * width if pooled else width, outputs)

    def forward(self, features_bnd: Tensor) -> Tensor:
        return self.read(standardized(features_bnd))

    def inputs(self, x_bnd: Tensor) -> Tensor:
        """What the Dense sees of features that went through `standardized`, float32 `[B, 1 or N, W]`."""
        if not self.pooled:
            return x_bnd.float()
        return over_time(x_bnd, self.times, appearance=self.appearance)[:, None]

    def read(self, x_bnd: Tensor) -> Tensor:
        """Outputs, of features that went through `standardized`."""
        return self.out(self.inputs(x_bnd))


Readout = AttentionReadout | EfficientReadout | LinearReadout | SolvedReadout
