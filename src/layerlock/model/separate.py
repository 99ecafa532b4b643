"""A separate decoder, as in MAE, VideoMAE, V-JEPA and blockwise learning, and the pixel targets that go with it.

Context features are brought to the decoder's width and joined by one mask token for each position to be predicted;
all of them know their position; a small transformer runs on both, and its normed outputs at the mask tokens go to
a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from layerlock.model.cost import block_flops, block_parameters, dense_flops, dense_parameters
from layerlock.model.patches import Grid
from layerlock.model.position import fixed_table
from layerlock.model.vit import GELU, Block, Blocks, Dense, Norm, ViTConfig


@dataclass(frozen=True, kw_only=True)
class SeparateDecoding:
    """Shape of a separate decoder. The defaults are V-JEPA's predictor (LayerLock A.2) beside a ViT-B, but that its
    positions are learned.
    """

    width: int = 384
    """length of a token"""
    depth: int = 12
    """blocks"""
    heads: int = 12
    """attention heads; V-JEPA's predictor has as many as its encoder"""
    mlp: int = 1536
    """width of the hidden layer"""
    position: Literal["sincos", "sincos-1d", "learned", "none"] = "sincos"
    """the table added to context and mask tokens: fixed in 3D, fixed over the number of the token, learned, none"""
    gelu: GELU = "exact"
    """how the hidden layer's GELU is computed"""
    norm_eps: float = 1e-6
    """added to the variance in the blocks' LayerNorms"""
    final_norm_eps: float = 1e-6
    """added to the variance in the LayerNorm after the last block"""
    key_bias: bool = True
    """whether keys have a bias, as queries and values do"""
    input_bias: bool = True
    """whether the projection from the encoder's width has a bias"""
    mask_tokens: int = 1
    """1 for all masks of a clip, or one for each of several, in their order (V-JEPA)"""
    zero_tokens: bool = False
    """mask tokens begin at zero (V-JEPA), and not at random (VideoMAE)"""
    input_norm: bool = False
    """LayerNorm of the features that come in, where they are not those of the encoder's own final norm"""

    def problems(self) -> list[str]:
        """What is wrong with these numbers, a line each."""
        found = [problem.replace("model.", "decoder.", 1) for problem in self.block.problems()]
        if self.final_norm_eps <= 0:
            found.append(f"decoder.final_norm_eps: {self.final_norm_eps} is not positive")
        if self.mask_tokens < 1:
            found.append(f"decoder.mask_tokens: {self.mask_tokens} is not positive")
        return found

    def after(self, depth: int, model: ViTConfig) -> SeparateDecoding:
        """The decoder at block `depth` of a backbone: no norm of its own where the backbone's comes before it."""
        normed = model.final_norm and depth == model.depth
        return replace(self, input_norm=self.input_norm and not normed)

    @property
    def block(self) -> ViTConfig:
        """The shape of its blocks."""
        return ViTConfig(
            width=self.width,
            depth=self.depth,
            mlp=self.mlp,
            heads=self.heads,
            position="none",
            gelu=self.gelu,
            norm_eps=self.norm_eps,
            key_bias=self.key_bias,
        )


class SeparateDecoder(nn.Module):
    """A transformer of its own that runs on `[context features, mask tokens]` and keeps the mask tokens.

    It computes in the type of the features it is given. A head, from `width` to what is predicted, is not part of it.
    """

    position: Tensor | None

    def __init__(self, config: SeparateDecoding, encoder_width: int, grid: Grid) -> None:
        super().__init__()
        self.config, self.tokens = config, grid[0] * grid[1] * grid[2]
        self.input_norm = Norm(encoder_width, config.norm_eps) if config.input_norm else None
        self.embed = Dense(encoder_width, config.width, bias=config.input_bias)
        self.token = nn.Parameter(torch.zeros(config.mask_tokens, config.width))
        self.blocks = Blocks(Block(config.block) for _ in range(config.depth))
        self.norm = Norm(config.width, config.final_norm_eps)
        if config.position == "learned":
            self.position = nn.Parameter(torch.zeros(self.tokens, config.width))
        else:
            table = fixed_table(config.position, grid, config.width)
            self.register_buffer(
                "position", None if table is None else table.to(self.embed.weight.device), persistent=False
            )

    @property
    def width(self) -> int:
        """Length of what it returns, the input width of a head."""
        return self.config.width

    def forward(
        self,
        x_bkd: Tensor,
        context_bk: Tensor,
        query_bq: Tensor | None = None,
        *,
        mask: int = 0,
        recompute: bool = False,
    ) -> Tensor:
        """Features `[B, Q, width]` at the positions `query_bq`, or at all N, from the encoder's `[B, K, D]` at
        `context_bk`. `mask` is the number of the mask that these are of. `recompute`: store no activations of blocks,
        run forward twice.
        """
        normed_bkd = x_bkd if self.input_norm is None else self.input_norm(x_bkd)
        y_bkw = self._placed(self.embed(normed_bkd), context_bk)
        queries = self.tokens if query_bq is None else query_bq.shape[1]
        token = self.token[mask % len(self.token)].to(y_bkw.dtype).expand(len(x_bkd), queries, self.width)
        joined = torch.cat([y_bkw, self._placed(token, query_bq)], dim=1)
        y = self.blocks.run(joined, None, 0, len(self.blocks), recompute=recompute)
        return self.norm(y[:, x_bkd.shape[1] :])

    def _placed(self, x_bkw: Tensor, index_bk: Tensor | None) -> Tensor:
        """Tokens that know that they stand at `index_bk`; without one, that they are the whole grid."""
        if self.position is None:
            return x_bkw
        return x_bkw + (self.position if index_bk is None else self.position[index_bk]).to(x_bkw.dtype)


def separate_flops(config: SeparateDecoding, encoder_width: int, context: int, queries: int) -> int:
    """A forward pass on `context` features that predicts `queries` positions, counted as in `model.cost`; no head."""
    blocks = config.depth * block_flops(config.block, context + queries)
    return dense_flops(context, encoder_width, config.width) + blocks


def separate_parameters(config: SeparateDecoding, encoder_width: int, tokens: int) -> int:
    """Parameters of a separate decoder for a grid of `tokens`; no head."""
    norms = 2 * config.width + (2 * encoder_width if config.input_norm else 0)
    embed = dense_parameters(encoder_width, config.width) - (0 if config.input_bias else config.width)
    rows = config.mask_tokens + (tokens if config.position == "learned" else 0)
    return norms + embed + rows * config.width + config.depth * block_parameters(config.block)


def normalized_patches(patches_bnp: Tensor) -> Tensor:
    """Patches `[B, N, P]`, uint8 or in [0, 1], each channel of each with mean 0 and deviation 1 (float32), as VideoMAE
    predicts them.

    The deviation is the unbiased one, plus 1e-6.
    """
    x = patches_bnp.float().div_(255) if patches_bnp.dtype == torch.uint8 else patches_bnp.float()
    pixels = x.unflatten(-1, (-1, 3))
    centred = pixels - pixels.mean(dim=-2, keepdim=True)
    # a norm: torch.std over an axis that is not the last takes ten times as long on a CPU
    deviation = torch.linalg.vector_norm(centred, dim=-2, keepdim=True) / math.sqrt(pixels.shape[-2] - 1)
    return centred.div_(deviation + 1e-6).flatten(-2)
