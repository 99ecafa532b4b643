"""What a backbone costs, counted from shapes: floating-point operations (a multiply-add is two), parameters, and bytes
that autograd keeps for backward.

Only matrix products count as operations, as in `torch.utils.flop_counter`; `learn.step_cost` and `learn.step_memory`
add up a training step.
"""

from __future__ import annotations

from dataclasses import dataclass

from layerlock.model.attention import WRITTEN_OUT
from layerlock.model.vit import ViTConfig

FLOAT = 4
"""bytes of a number in float32: weights that learn, gradients, moments, losses, what LayerNorm computes in"""


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What bytes depend on besides shapes: bytes of a number in the type that is computed in, 2 (bfloat16) or 4
    (float32), and whether on a CPU, whose LayerNorm reads bfloat16 and whose attention in bfloat16 is our own.
    """

    compute: int
    cpu: bool = False

    @property
    def casts(self) -> bool:
        """Whether float32 weights are cast at each use, and the copies kept for backward."""
        return self.compute != FLOAT


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


def norm_kept(tokens: int, width: int, numerics: Numerics) -> int:
    """Bytes that a LayerNorm of `tokens` keeps for backward: its input, in float32 but on a CPU, means, deviations."""
    return tokens * (width * (numerics.compute if numerics.cpu else FLOAT) + 2 * FLOAT)


def block_kept(model: ViTConfig, tokens: int, numerics: Numerics) -> int:
    """Bytes that a live block keeps for backward for a sequence of `tokens`: the inputs of two norms, of four linear
    layers and of GELU, and what attention keeps. Without copies of weights (`block_casts`) and tables of rotations.
    """
    d, c = model.width, numerics.compute
    linear = tokens * c * (3 * d + 2 * model.mlp)  # inputs of qkv, of the output projection, of fc1; of GELU and fc2
    return 2 * norm_kept(tokens, d, numerics) + linear + _attention_kept(model, tokens, numerics)


def _attention_kept(model: ViTConfig, tokens: int, numerics: Numerics) -> int:
    """Queries, keys and values, and the logarithms of the softmax's sums or the softmax itself (`model.attention`); the
    output is the input of the projection. Queries and keys that are rotated are kept beside those that are not.
    """
    rotated = 2 * model.width if model.position == "rope-attention" else 0
    if numerics.cpu and numerics.casts and tokens * tokens <= WRITTEN_OUT:
        return tokens * numerics.compute * (3 * model.width + model.heads * tokens)
    return tokens * (numerics.compute * (3 * model.width + rotated) + FLOAT * model.heads)


def block_casts(model: ViTConfig, numerics: Numerics) -> int:
    """Bytes of the copies of a live block's matrices that are kept for backward, whatever the number of clips."""
    return numerics.compute * (4 * model.width**2 + 2 * model.width * model.mlp) if numerics.casts else 0
