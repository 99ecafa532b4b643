"""What a backbone costs, counted from shapes: floating-point operations (a multiply-add is two) and parameters.

Only matrix products count, as in `torch.utils.flop_counter`; `learn.step_cost` adds them up for a training step.
"""

from __future__ import annotations

from layerlock.model.vit import ViTConfig


def dense_parameters(inputs: int, outputs: int) -> int:
    """Weights and biases of one linear layer."""
    return inputs * outputs + outputs


def block_parameters(model: ViTConfig) -> int:
    """Parameters of one block: two norms, q, k, v, the output projection, the MLP."""
    d, m = model.width, model.mlp
    without_key_bias = 0 if model.key_bias else d
    return 4 * d + 4 * dense_parameters(d, d) - without_key_bias + dense_parameters(d, m) + dense_parameters(m, d)


def backbone_parameters(model: ViTConfig, tokens: int = 0) -> int:
    """Parameters of a backbone; `tokens` matters only where positions are learned."""
    learned = tokens * model.width if model.position == "learned" else 0
    norm = 2 * model.width if model.final_norm else 0
    return dense_parameters(model.patch_values, model.width) + learned + model.depth * block_parameters(model) + norm


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
