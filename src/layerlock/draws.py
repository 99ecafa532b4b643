"""Random numbers as a pure function of (seed, purpose, index): no streams, no state, any device, any order.

Every number is a SplitMix64 hash of a counter (Steele, Lea and Flood, 2014), computed in wrapping 64-bit integer
arithmetic, so it is the same on every machine, for any number of workers or processes and any splitting of a batch.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from layerlock import first_calls  # noqa: F401  same numbers on several threads

GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same bits as `value` modulo 2**64."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own is arithmetic on int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def mixed(x: int) -> int:
    """The finalizer of SplitMix64 on a plain integer modulo 2**64."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


@lru_cache(1024)
def key(seed: int, purpose: str) -> int:
    """A 64-bit key, signed, for one purpose under one seed."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "little"))


def bits(seed: int, purpose: str, index_b: Tensor, count: int) -> Tensor:
    """Non-negative 63-bit integers `[B, count]` (int64), a row for each global sample index in `index_b` `[B]`."""
    row_b = _mix(index_b.to(torch.int64) * _signed(GOLDEN) + key(seed, purpose))
    column_n = torch.arange(1, count + 1, device=index_b.device, dtype=torch.int64) * _signed(GOLDEN)
    return _mix(_mix(row_b[:, None] + column_n[None, :])) & ((1 << 63) - 1)


def uniform(seed: int, purpose: str, index_b: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) `[B, count]` (float64, 53 bits each)."""
    return (bits(seed, purpose, index_b, count) >> 10).to(torch.float64) * 2.0**-53


def uniform_of_one(seed: int, purpose: str, index: int, count: int) -> list[float]:
    """The numbers of `uniform` for one index, without tensors: several times as fast for a few numbers."""
    row = mixed(index * GOLDEN + key(seed, purpose))
    numbers = (mixed(mixed(row + column * GOLDEN)) for column in range(1, count + 1))
    return [((number & (_MASK >> 1)) >> 10) * 2.0**-53 for number in numbers]


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for initial weights: the one place where a stream of numbers is wanted."""
    return torch.Generator().manual_seed(key(seed, purpose) & ((1 << 63) - 1))
