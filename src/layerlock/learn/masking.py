"""Which tokens are context: pure functions of (seed, global sample index)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from layerlock import draws


def random_subset(seed: int, purpose: str, index_b: Tensor, tokens: int, count: int) -> Tensor:
    """`count` of `tokens` positions for each sample, uniformly at random, in ascending order: int64 `[B, count]`."""
    order_bn = draws.bits(seed, purpose, index_b, tokens).argsort(dim=1, stable=True)
    return order_bn[:, :count].sort(dim=1).values


@dataclass(frozen=True, kw_only=True)
class RandomMasking:
    """Each token kept as context independently at random, exactly `round(N * keep)` of them (LayerLock section 3.1)."""

    keep: float = 0.05
    """share of the tokens that the model sees"""

    def problems(self, tokens: int) -> list[str]:
        """What is wrong for clips of `tokens` tokens, a line each."""
        if not 0 < self.keep < 1:
            return [f"masking.keep: {self.keep} is not between 0 and 1"]
        if not 0 < self.count(tokens) < tokens:
            return [f"masking.keep: {self.keep} of {tokens} tokens leaves {self.count(tokens)} as context"]
        return []

    def count(self, tokens: int) -> int:
        """Context tokens of a clip, K."""
        return round(tokens * self.keep)

    def context(self, seed: int, index_b: Tensor, tokens: int) -> Tensor:
        """Positions of the context tokens, ascending: int64 `[B, K]`."""
        return random_subset(seed, "context", index_b, tokens, self.count(tokens))
