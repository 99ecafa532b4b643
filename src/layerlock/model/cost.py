"""What a step costs, counted from shapes: floating-point operations (a multiply-add is two) and parameters.

Only matrix products count, as in `torch.utils.flop_counter`. A live block costs three forwards (one forward, two for
the gradients of inputs and weights), a frozen one a single forward. Recomputation of activations is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from layerlock.model.vit import ViTConfig


def dense_parameters(inputs: int, outputs: int) -> int:
    """Weights and biases of one linear layer."""
    return inputs * outputs + outputs


def block_parameters(model: ViTConfig) -> int:
    """Parameters of one block: two norms, q, k, v, the output projection, the MLP."""
    d, m = model.width, model.mlp
    return 4 * d + 4 * dense_parameters(d, d) + dense_parameters(d, m) + dense_parameters(m, d)


def backbone_parameters(model: ViTConfig, tokens: int = 0) -> int:
    """Parameters of a backbone; `tokens` matters only where positions are learned."""
    learned = tokens * model.width if model.position == "learned" else 0
    return dense_parameters(model.patch_values, model.width) + learned + model.depth * block_parameters(model)


def block_flops(model: ViTConfig, tokens: int) -> int:
    """One block's forward pass on a sequence of `tokens`."""
    d = model.width
    return 2 * tokens * (4 * d * d + 2 * d * model.mlp) + 4 * tokens * tokens * d


def dense_flops(tokens: int, inputs: int, outputs: int) -> int:
    """One linear layer's forward pass."""
    return 2 * tokens * inputs * outputs


def encoder_flops(model: ViTConfig, tokens: int, depth: int | None = None) -> int:
    """A forward pass of `tokens` unmasked tokens through the first `depth` blocks (all without one)."""
    blocks = model.depth if depth is None else depth
    return dense_flops(tokens, model.patch_values, model.width) + blocks * block_flops(model, tokens)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss as far as cost goes: its tap's depth, its target's layer (0: pixels) and how many positions it
    predicts.
    """

    depth: int
    layer: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """FLOPs of one clip in one training step, by part; `total` is their sum."""

    encoder: int
    decoder: int
    heads: int
    target: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.encoder + self.decoder + self.heads + self.target


def step_cost(
    model: ViTConfig, *, frozen: int, decoder_blocks: int, context: int, target_tokens: int, losses: Iterable[Loss]
) -> StepCost:
    """A step of a backbone whose last `decoder_blocks` decode, with `frozen` blocks frozen.

    `context` tokens run through the encoder; `target_tokens` through the blocks up to the deepest target; each depth
    with a loss decodes once, at the most positions that a loss there asks for.
    """
    losses = list(losses)
    context_block = block_flops(model, context)
    depth = max(loss.depth for loss in losses)
    embed = dense_flops(context, model.patch_values, model.width)
    encoder = embed * (1 if frozen else 2)
    encoder += sum(context_block * (1 if block < frozen else 3) for block in range(depth))
    first = model.depth - decoder_blocks
    decoder = heads = 0
    for at in {loss.depth for loss in losses}:
        queries = max(loss.positions for loss in losses if loss.depth == at)
        decoder += sum(
            block_flops(model, queries + context) * (1 if block < frozen else 3) for block in range(first, model.depth)
        )
    below = 3 if frozen < model.depth else 2
    for loss in losses:
        heads += below * dense_flops(loss.positions, model.width, model.width if loss.layer else model.patch_values)
    deepest = max(loss.layer for loss in losses)
    target = encoder_flops(model, target_tokens, deepest) if deepest else 0
    return StepCost(encoder=encoder, decoder=decoder, heads=heads, target=target)
