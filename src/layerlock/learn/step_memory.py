"""What a stage holds in memory, counted from shapes: parameters, bytes of weights, bytes kept for backward.

Weights that learn are kept in float32, frozen blocks in the type that is computed in. Where that is bfloat16, the
copies that float32 weights are cast to are kept for backward too; their bytes do not depend on the number of clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Decoding
from layerlock.learn.masking import Counts
from layerlock.learn.networks import known_shape
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.step_cost import outputs, positions, seen_tokens
from layerlock.learn.targets import MODEL, OWN, TEACHER, FeatureTarget, Target
from layerlock.model.cost import (
    FLOAT,
    Numerics,
    backbone_parameters,
    block_casts,
    block_kept,
    block_parameters,
    dense_parameters,
    norm_kept,
)
from layerlock.model.patches import Grid
from layerlock.model.separate import separate_parameters
from layerlock.model.vit import ViTConfig


class Kept(NamedTuple):
    """Bytes kept for backward: of each clip, and whatever the number of clips."""

    clip: int
    fixed: int

    def plus(self, clip: int, fixed: int = 0) -> Kept:
        """With more of both."""
        return Kept(self.clip + clip, self.fixed + fixed)


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a stage holds. Without networks that are not on this machine and the heads that predict them."""

    live: int
    """parameters that learn"""
    weights: int
    """bytes of all weights: the model's, decoders', heads', a teacher's, frozen encoders'"""
    kept: Kept
    """bytes that autograd keeps at the fullest moment"""
    working: int
    """bytes of a clip that operators need beside these at that moment"""
    inputs: int
    """bytes of a clip as uint8, whole and as patches"""
    earlier: float
    """the share of the gradients that is there, from earlier backwards of the same step, when the last one begins"""


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """A stage and all that its memory follows from."""

    model: ViTConfig
    decoding: Decoding
    stage: Stage
    grid: Grid
    numerics: Numerics
    recompute: bool

    @property
    def tokens(self) -> int:
        """Tokens of a clip, N."""
        return math.prod(self.grid)

    @property
    def frames(self) -> int:
        """Of a clip."""
        return self.grid[0] * self.model.patch[0]

    @property
    def depths(self) -> list[int]:
        """Blocks after which losses are taken, shallow first."""
        return sorted({tap.depth for tap in self.stage.taps})

    def taps(self, depth: int) -> list[Tap]:
        """The losses at a depth."""
        return [tap for tap in self.stage.taps if tap.depth == depth]

    def outputs(self, tap: Tap) -> int:
        """Numbers that a head predicts at each position; 0 where nobody knows."""
        return outputs(tap, self.model, self.frames)


def step_memory(shape: StepShape, counts: Sequence[Counts]) -> StepMemory:
    """Memory of a step; `counts` are the tokens of each mask, a pass with a backward of its own each.

    Raises LayerlockError where a frozen encoder that targets are made by is there and cannot be used.
    """
    passes = [_sections(shape, each) for each in counts]
    sections = [kept for each in passes for kept in each]
    patches = shape.tokens * shape.model.patch_values
    return StepMemory(
        live=_live(shape),
        weights=_weights(shape),
        kept=Kept(*(max(part) for part in zip(*sections, strict=True))),
        working=max(_working(shape, each) for each in counts),
        inputs=2 * patches,
        earlier=1 - 1 / len(passes[0]) if len(passes) == 1 else 1.0,
    )


# --- parameters and weights ------------------------------------------------------------------------------------------


def _live(shape: StepShape) -> int:
    """Parameters that a stage trains, its decoders and heads included."""
    model, stage = shape.model, shape.stage
    live = _added(shape) + max(0, stage.last - stage.frozen) * block_parameters(model)
    if stage.frozen == 0:
        live += _first(shape)
    if model.final_norm and stage.frozen < model.depth and model.depth in shape.depths:
        live += 2 * model.width
    if _learns_token(shape):
        live += model.width
    return live


def _first(shape: StepShape) -> int:
    """Parameters before the first block: the patch projection and positions that are learned."""
    model = shape.model
    return dense_parameters(model.patch_values, model.width) + _positions_learned(shape)


def _positions_learned(shape: StepShape) -> int:
    return shape.tokens * shape.model.width if shape.model.position == "learned" else 0


def _has_token(shape: StepShape) -> bool:
    """Whether a decoder that is part of the backbone has a token that is learned."""
    decoding = shape.decoding
    return isinstance(decoding, BackboneDecoding) and (decoding.tokens == "learned" or shape.model.position != "rope")


def _learns_token(shape: StepShape) -> bool:
    return _has_token(shape) and shape.stage.frozen <= _first_decoding(shape)


def _first_decoding(shape: StepShape) -> int:
    """Blocks before those that decode; all of them, where the decoder is a separate one."""
    decoding = shape.decoding
    return shape.model.depth - (decoding.blocks if isinstance(decoding, BackboneDecoding) else 0)


def _added(shape: StepShape) -> int:
    """Parameters of heads and of separate decoders."""
    model, decoding = shape.model, shape.decoding
    width = model.width if isinstance(decoding, BackboneDecoding) else decoding.width
    found = sum(dense_parameters(width, out) for tap in shape.stage.taps if (out := shape.outputs(tap)))
    if not isinstance(decoding, BackboneDecoding):
        each = (decoding.after(depth, model) for depth in shape.depths)
        found += sum(separate_parameters(one, model.width, shape.tokens) for one in each)
    return found


def _weights(shape: StepShape) -> int:
    """Bytes of all weights."""
    model, stage, compute = shape.model, shape.stage, shape.numerics.compute
    whole = backbone_parameters(model, shape.tokens)
    cast = stage.frozen * block_parameters(model) + (_first(shape) - _positions_learned(shape) if stage.frozen else 0)
    total = cast * compute + (whole - cast + (model.width if _has_token(shape) else 0)) * FLOAT
    if TEACHER in stage.networks:
        shared = stage.frozen * block_parameters(model) + (_first(shape) if stage.frozen else 0)
        norm = 2 * model.width if model.final_norm and stage.frozen == model.depth else 0
        total += (whole - shared - norm) * FLOAT
    scales = sum(
        2 * shape.outputs(tap)
        for tap in stage.taps
        if isinstance(tap.target, FeatureTarget) and tap.target.standardized
    )
    known = (known_shape(name, shape.frames) for name in stage.networks if name not in OWN)
    foreign = sum(backbone_parameters(each.model, math.prod(each.grid)) for each in known if each)
    return total + (_added(shape) + scales) * FLOAT + foreign * compute


# --- kept for backward -----------------------------------------------------------------------------------------------


def _sections(shape: StepShape, counts: Counts) -> list[Kept]:
    """What each backward of one pass frees: after the last loss, and after those whose gradients end there."""
    sections, at = [], shape.stage.frozen
    now = _target_pass(shape, counts) if shape.stage.trains_targets else Kept(0, 0)
    if shape.stage.frozen == 0:
        now = now.plus(round(counts.context) * shape.model.patch_values * shape.numerics.compute)
    began = at
    for depth in shape.depths:
        now = now.plus(*_blocks(shape, shape.model, depth - at, round(counts.context)))
        at = max(at, depth)
        now = now.plus(*_decode(shape, counts, depth)).plus(*_losses(shape, counts, depth))
        last = depth == shape.depths[-1]
        if last or shape.taps(depth)[0].detach:
            sections.append(now.plus(_table(shape, round(counts.context)) if at > began else 0))
            now, began = Kept(0, 0), at
        elif shape.numerics.cpu or not shape.numerics.casts:  # the next block keeps the same input
            now = now.plus(-_input(shape, counts))
    if shape.recompute:
        sections = [section.plus(*_recomputed(shape, counts)) for section in sections]
    return sections


def _input(shape: StepShape, counts: Counts) -> int:
    """Bytes that features of the context are."""
    return (
        0
        if isinstance(shape.decoding, BackboneDecoding)
        else round(counts.context) * shape.model.width * (shape.numerics.compute)
    )


def _blocks(shape: StepShape, model: ViTConfig, live: int, tokens: int) -> Kept:
    """So many live blocks; where their activations are recomputed, their inputs alone."""
    if live <= 0:
        return Kept(0, 0)
    if shape.recompute:
        return Kept(live * tokens * model.width * shape.numerics.compute, 0)
    return Kept(live * block_kept(model, tokens, shape.numerics), live * block_casts(model, shape.numerics))


def _recomputed(shape: StepShape, counts: Counts) -> Kept:
    """The largest block, whose activations are there while its backward runs."""
    context = round(counts.context)
    most = [Kept(0, 0)]
    for depth in shape.depths:
        both = context + _queries(shape, counts, depth)
        if not isinstance(shape.decoding, BackboneDecoding):
            block = shape.decoding.block
            most.append(Kept(block_kept(block, both, shape.numerics), block_casts(block, shape.numerics)))
        elif shape.stage.frozen < shape.model.depth:
            most.append(Kept(block_kept(shape.model, both, shape.numerics), block_casts(shape.model, shape.numerics)))
        if depth > shape.stage.frozen:
            tokens = max(context, seen_tokens(shape.stage, counts, shape.tokens) if shape.stage.trains_targets else 0)
            most.append(Kept(block_kept(shape.model, tokens, shape.numerics), block_casts(shape.model, shape.numerics)))
    return max(most)


def _table(shape: StepShape, tokens: int) -> int:
    """Cosines and sines of the rotations of `tokens`, which all blocks share."""
    model = shape.model
    width = {"rope": model.width, "rope-attention": model.width // model.heads}.get(model.position, 0)
    return 2 * tokens * width * shape.numerics.compute


def _target_pass(shape: StepShape, counts: Counts) -> Kept:
    """The model's own pass for targets that gradients go into."""
    stage, model = shape.stage, shape.model
    seen, depth = seen_tokens(stage, counts, shape.tokens), stage.blocks_of(MODEL)[-1]
    kept = _blocks(shape, model, depth - stage.frozen, seen)
    if stage.frozen == 0:
        kept = kept.plus(seen * model.patch_values * shape.numerics.compute)
    if model.final_norm and depth == model.depth:
        kept = kept.plus(norm_kept(seen, model.width, shape.numerics))
    whole = seen == shape.tokens  # then the table itself is kept, once
    table = _table(shape, seen)
    return kept.plus(0, table) if whole else kept.plus(table)


def _queries(shape: StepShape, counts: Counts, depth: int) -> int:
    """Positions that are decoded at a depth."""
    taps = shape.taps(depth)
    several = len({_place(tap) for tap in taps}) > 1
    return shape.tokens if several else positions(taps[0], counts, shape.tokens)


def _place(tap: Tap) -> str:
    """Where a loss is: at all positions, at those that are masked, or at a subset."""
    return "masked" if tap.masked else "subset" if tap.fraction < 1 else "all"


def _decode(shape: StepShape, counts: Counts, depth: int) -> Kept:
    """The decoder at a depth, and the final norm before a separate one."""
    model, decoding, numerics = shape.model, shape.decoding, shape.numerics
    context, queries = round(counts.context), _queries(shape, counts, depth)
    if isinstance(decoding, BackboneDecoding):
        live = model.depth - max(shape.stage.frozen, _first_decoding(shape))
        kept = _blocks(shape, model, live, queries + context)
        kept = kept.plus(_table(shape, queries + context) if live else 0)
        if _learns_token(shape) and model.position == "rope":
            table = _table(shape, queries)
            kept = kept.plus(0, table) if queries == shape.tokens else kept.plus(table)
        return kept
    made, c = decoding.after(depth, model), numerics.compute
    kept = _blocks(shape, made.block, made.depth, context + queries)
    if made.input_norm or (model.final_norm and depth == model.depth and shape.stage.frozen < model.depth):
        kept = kept.plus(norm_kept(context, model.width, numerics))
    embed = c * model.width * made.width if numerics.casts and (depth > shape.stage.frozen or made.input_norm) else 0
    # where the last norm's input need not be cast, what is kept is all of it, context too
    whole = context * made.width * c if numerics.cpu or not numerics.casts else 0
    return kept.plus(context * model.width * c + norm_kept(queries, made.width, numerics) + whole, embed)


def _losses(shape: StepShape, counts: Counts, depth: int) -> Kept:
    """Inputs of heads; predictions and targets in float32, of an absolute error the difference alone."""
    model, decoding, c = shape.model, shape.decoding, shape.numerics.compute
    backbone = isinstance(decoding, BackboneDecoding)
    width = model.width if isinstance(decoding, BackboneDecoding) else decoding.width
    clip = fixed = 0
    shared, views = set[str](), set[Target]()
    for tap in shape.taps(depth):
        count, out = positions(tap, counts, shape.tokens), shape.outputs(tap)
        if backbone or _place(tap) not in shared:  # what a separate decoder returns needs no copy
            clip += count * width * c
        shared.add(_place(tap))
        clip += (1 if tap.error == "absolute" else 2) * FLOAT * count * out
        if _is_view(tap, shape):
            clip -= FLOAT * count * out if tap.target in views else 0
            views.add(tap.target)
        if isinstance(tap.target, FeatureTarget) and tap.target.gradient and tap.target.normalized:
            clip += FLOAT * count * out
        if shape.numerics.casts and (not backbone or shape.stage.frozen < model.depth):
            fixed += c * width * out
    return Kept(clip, fixed)


def _working(shape: StepShape, counts: Counts) -> int:
    """What one clip needs beside what is kept, when that is most: two float32 numbers for each that is predicted, or
    the gradient of a hidden layer and of a block's output, whichever is more. Where gradients end at several depths,
    the predictions and targets of one are still there while the next is computed.
    """
    model, decoding, c = shape.model, shape.decoding, shape.numerics.compute
    block = model if isinstance(decoding, BackboneDecoding) else decoding.block
    context, several = round(counts.context), any(tap.detach for tap in shape.stage.taps) and len(shape.depths) > 1
    most = 0
    for depth in shape.depths:
        numbers = sum(positions(tap, counts, shape.tokens) * shape.outputs(tap) for tap in shape.taps(depth))
        hidden = (context + _queries(shape, counts, depth)) * (block.mlp + block.width) * c
        held = numbers * (2 * FLOAT + (c if shape.numerics.casts else 0)) if several else 0
        most = max(most, max(2 * FLOAT * numbers, hidden) + held)
    return most


def _is_view(tap: Tap, shape: StepShape) -> bool:
    """Whether the target that is kept is the features themselves, which several losses share."""
    target = tap.target
    plain = isinstance(target, FeatureTarget) and not (target.normalized or target.standardized or target.blocks[1:])
    return plain and not shape.numerics.casts and _place(tap) == "all" and tap.error != "absolute"
