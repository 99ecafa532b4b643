"""Decoders: from context features to predictions at target positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layerlock.model.position import Rotation, rotate, sincos_table
from layerlock.model.vit import ViT


@dataclass(frozen=True, kw_only=True)
class BackboneDecoding:
    """The 4DS decoder: the last `blocks` blocks of the backbone itself (LayerLock section 3.1).

    `tokens`: a decoding token is its `position` alone, or a `learned` vector with the position applied to it. Under
    position schemes that cannot be applied to a constant (all but RoPE) it is learned whatever this says.
    """

    blocks: int = 4
    """blocks at the end of the backbone that decode"""
    tokens: Literal["position", "learned"] = "position"
    """what a decoding token is"""

    def problems(self, depth: int) -> list[str]:
        """What is wrong on a backbone of `depth` blocks, a line each."""
        return (
            []
            if 1 <= self.blocks < depth
            else [f"decoder.blocks: {self.blocks} of {depth} blocks; at least one must stay the encoder's"]
        )


class BackboneDecoder(nn.Module):
    """Runs `[decoding tokens, context]` through the last blocks of a ViT and keeps the decoding tokens."""

    def __init__(self, config: BackboneDecoding, vit: ViT) -> None:
        super().__init__()
        self.first = vit.config.depth - config.blocks
        self.rotary = vit.config.position == "rope"
        learned = config.tokens == "learned" or not self.rotary
        self.token = nn.Parameter(torch.zeros(vit.config.width)) if learned else None
        added = vit.config.position in ("none", "rope-attention")
        table = sincos_table(vit.grid, vit.config.width).to(vit.embed.weight.device) if added else None
        self.register_buffer("table", table, persistent=False)

    def tokens(self, vit: ViT, query_bq: Tensor | None) -> Tensor:
        """Decoding tokens `[N, D]` of the whole grid, or `[B, Q, D]` of the positions asked for."""
        if self.rotary:
            rotation = vit.rotation(query_bq)
            assert rotation is not None
            constant = (
                torch.ones_like(rotation.cos)
                if self.token is None
                else self.token.to(vit.compute).expand_as(rotation.cos)
            )
            return rotate(constant, rotation)
        table = vit.position if self.table is None else self.table
        assert self.token is not None
        assert isinstance(table, Tensor)
        return (self.token + (table if query_bq is None else table[query_bq])).to(vit.compute)

    def forward(
        self,
        vit: ViT,
        x_bkd: Tensor,
        context: Rotation | None,
        query_bq: Tensor | None,
        *,
        frozen: int,
        recompute: bool,
    ) -> Tensor:
        """Features `[B, Q, D]` at the positions `query_bq`, or at all N, from the encoder's features `[B, K, D]`.

        `context` is the rotation of those features' tokens.
        """
        token = self.tokens(vit, query_bq)
        z_bqd = token.expand(x_bkd.shape[0], *token.shape[-2:])
        rotation = vit.rotation(query_bq)
        joined = rotation.joined(context, x_bkd.shape[0]) if rotation is not None and context is not None else None
        y = torch.cat([z_bqd, x_bkd], dim=1)
        live = max(frozen, self.first)
        if live > self.first:
            with torch.no_grad():
                y = vit.run(y, joined, self.first, live)
        return vit.run(y, joined, live, vit.config.depth, recompute=recompute)[:, : z_bqd.shape[1]]
