"""The order of the videos: a random permutation of range(n) that needs no memory, for any n up to 2**40.

A four-round Feistel network (Luby and Rackoff, 1988) permutes the smallest even number of bits that hold n; a value
that falls outside range(n) is sent through again until it falls inside (cycle walking; Black and Rogaway, 2002).
"""

from __future__ import annotations

from collections.abc import Iterator

from layerlock import draws

_ROUNDS = 4


def permuted(position: int, count: int, key: int) -> int:
    """The element at `position` of a permutation of range(count) chosen by a 64-bit `key`."""
    if not 0 <= position < count:
        raise ValueError(f"position {position} is not in range({count})")
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    value = _feistel(position, half, key)
    while value >= count:
        value = _feistel(value, half, key)
    return value


def video_at(index: int, videos: int, seed: int) -> int:
    """The video of an index: every epoch of `videos` indices visits each video once, in a new order."""
    return next(videos_from(index, videos, seed, 1))


def videos_from(index: int, videos: int, seed: int, most: int) -> Iterator[int]:
    """The video of an index and those after it in the order of its epoch, at most `most`, none twice."""
    epoch, position = divmod(index, videos)
    key = draws.key(seed, f"order/{epoch}")
    return (permuted((position + i) % videos, videos, key) for i in range(min(most, videos)))


def _feistel(value: int, half: int, key: int) -> int:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_hash(key + (turn << 56) + right) & mask)
    return left << half | right


def _hash(x: int) -> int:
    return draws.mixed(x + draws.GOLDEN)
