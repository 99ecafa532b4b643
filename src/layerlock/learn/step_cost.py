"""What a stage costs, counted from shapes: FLOPs of one clip in one training step, by part.

A live layer costs three forwards (one forward, two for the gradients of inputs and weights), a frozen one a single
forward. What recomputation of activations adds stands apart, as in every measure of model FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Decoding
from layerlock.learn.masking import Counts
from layerlock.learn.networks import known_shape
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.targets import MODEL, OWN, TEACHER, PatchTarget
from layerlock.model.cost import block_flops, dense_flops, encoder_flops
from layerlock.model.patches import Grid
from layerlock.model.separate import separate_flops
from layerlock.model.vit import ViTConfig

LIVE = 3
"""passes that a live layer costs: one forward, one for the gradients of its weights, one for those of its input"""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """FLOPs by part; `total` is their sum.

    Without those of the networks `unknown`, which are not on this machine, and of the heads that predict them.
    """

    encoder: int
    decoder: int
    heads: int
    target: int
    recomputed: int
    """what a second forward of the live blocks adds where their activations are recomputed; not in `total`"""
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All of it."""
        return self.encoder + self.decoder + self.heads + self.target


def step_cost(model: ViTConfig, decoding: Decoding, stage: Stage, counts: Sequence[Counts], grid: Grid) -> StepCost:
    """One clip of a grid of tokens in a step of `stage`; `counts` are the tokens of each mask, a pass each.

    Raises LayerlockError where a frozen encoder that targets are made by is there and cannot be used.

    Targets are computed once for all masks (the model's own for each, where gradients go into them), as deep as they
    are; each depth with a loss decodes once, at the most positions that a loss there asks for.
    """
    tokens, frames = math.prod(grid), grid[0] * model.patch[0]
    passes = [_pass(model, decoding, stage, each, tokens, frames) for each in counts]
    encoder, decoder, heads, recomputed = (sum(parts) for parts in zip(*passes, strict=True))
    seen = seen_tokens(stage, counts[0], tokens)
    target, unknown = 0, []
    for network in stage.networks:
        blocks = stage.blocks_of(network)
        if network == MODEL:
            target += _own_target(model, stage, seen, blocks[-1]) * (len(passes) if stage.trains_targets else 1)
            if stage.trains_targets:
                recomputed += len(passes) * (blocks[-1] - stage.frozen) * _again(model, seen)
        elif network == TEACHER:
            target += encoder_flops(model, seen, blocks[-1])
        elif shape := known_shape(network, frames):
            target += shape.flops(blocks)
        else:
            unknown.append(network)
    return StepCost(
        encoder=encoder,
        decoder=decoder,
        heads=heads,
        target=target,
        recomputed=recomputed,
        unknown=tuple(unknown),
    )


def seen_tokens(stage: Stage, counts: Counts, tokens: int) -> int:
    """Tokens of `tokens` that latent targets are computed from: the subset alone where no loss wants more."""
    seen = max((tokens if tap.full_clip else positions(tap, counts, tokens) for tap in stage.latent), default=0)
    return tokens if any(tap.masked for tap in stage.latent) else seen


def _own_target(model: ViTConfig, stage: Stage, seen: int, depth: int) -> int:
    """One pass of the model on `seen` tokens of targets; with a backward where gradients go into them."""
    once = encoder_flops(model, seen, depth)
    return LIVE * once - dense_flops(seen, model.patch_values, model.width) if stage.trains_targets else once


def _pass(
    model: ViTConfig, decoding: Decoding, stage: Stage, counts: Counts, tokens: int, frames: int
) -> tuple[int, int, int, int]:
    """Encoder, decoders and heads for one mask, and what recomputation adds to them."""
    context = round(counts.context)
    depths = sorted({tap.depth for tap in stage.taps})
    embed = dense_flops(context, model.patch_values, model.width)
    encoder = embed * (1 if stage.frozen else LIVE - 1)
    block = block_flops(model, context)
    encoder += sum(block * (1 if number < stage.frozen else LIVE) for number in range(depths[-1]))
    decoder = heads = 0
    recomputed = max(0, depths[-1] - stage.frozen) * _again(model, context)
    for depth in depths:
        taps = [tap for tap in stage.taps if tap.depth == depth]
        queries = max(positions(tap, counts, tokens) for tap in taps)
        decoder += _decode(model, decoding, stage, depth, context, queries)
        recomputed += _decoded_again(model, decoding, stage, context + queries)
        for tap in taps:
            out = outputs(tap, model, frames)
            heads += _head(model, decoding, stage, out, positions(tap, counts, tokens))
    return encoder, decoder, heads, recomputed


def _again(model: ViTConfig, tokens: int) -> int:
    """A second forward of a block, which ends before its last product: nothing asks for that one's output."""
    return block_flops(model, tokens) - dense_flops(tokens, model.mlp, model.width)


def _decoded_again(model: ViTConfig, decoding: Decoding, stage: Stage, tokens: int) -> int:
    """A second forward of the live blocks that decode so many tokens."""
    if isinstance(decoding, BackboneDecoding):
        return min(decoding.blocks, model.depth - stage.frozen) * _again(model, tokens)
    return decoding.depth * _again(decoding.block, tokens)


def positions(tap: Tap, counts: Counts, tokens: int) -> int:
    """At how many of a clip's `tokens` a loss is."""
    if tap.masked:
        return round(counts.predicted)
    return max(1, round(tokens * tap.fraction))


def _decode(model: ViTConfig, decoding: Decoding, stage: Stage, depth: int, context: int, queries: int) -> int:
    if isinstance(decoding, BackboneDecoding):
        block = block_flops(model, queries + context)
        first = model.depth - decoding.blocks
        return sum(block * (1 if number < stage.frozen else LIVE) for number in range(first, model.depth))
    whole = separate_flops(decoding, model.width, context, queries)
    inputs = dense_flops(context, model.width, decoding.width)
    learns_below = depth > stage.frozen or decoding.after(depth, model).input_norm
    return LIVE * whole - (0 if learns_below else inputs)


def outputs(tap: Tap, model: ViTConfig, frames: int) -> int:
    """Numbers that a head predicts at each position; 0 where nobody knows."""
    if isinstance(tap.target, PatchTarget):
        return model.patch_values
    network = tap.target.network
    if network in OWN:
        return model.width
    shape = known_shape(network, frames)
    return shape.model.width if shape else 0


def _head(model: ViTConfig, decoding: Decoding, stage: Stage, out: int, positions: int) -> int:
    if not isinstance(decoding, BackboneDecoding):
        return LIVE * dense_flops(positions, decoding.width, out)
    passes = LIVE if stage.frozen < model.depth else LIVE - 1
    return passes * dense_flops(positions, model.width, out)
