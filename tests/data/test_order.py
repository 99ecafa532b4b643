from __future__ import annotations

import random
from itertools import pairwise

import pytest

from layerlock import draws
from layerlock.data.order import permuted, video_at


@pytest.mark.parametrize("count", [*range(1, 70), 255, 256, 257, 1000, 4096, 5001])
def test_is_a_permutation(count: int) -> None:
    assert sorted(permuted(position, count, 99) for position in range(count)) == list(range(count))


@pytest.mark.parametrize("bits", range(13, 41))
def test_large_ranges_are_kept_and_hit_once(bits: int) -> None:
    generator = random.Random(bits)
    for count in (2**bits, 2**bits - 1, generator.randrange(2 ** (bits - 1) + 1, 2**bits)):
        positions = {generator.randrange(count) for _ in range(300)} | {0, count - 1}
        images = [permuted(position, count, draws.key(bits, "order")) for position in positions]
        assert len(set(images)) == len(positions)
        assert all(0 <= image < count for image in images)


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(ValueError, match="not in range"):
        permuted(position, 10, 0)


def test_every_epoch_has_each_video_once_in_another_order() -> None:
    epochs = [[video_at(epoch * 50 + i, 50, seed=3) for i in range(50)] for epoch in range(20)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert epochs[0] != [video_at(i, 50, seed=4) for i in range(50)]


def test_first_place_is_spread_evenly() -> None:
    """Chi-square of 4000 keys over 10 places, 9 degrees of freedom: 27.9 is passed once in a thousand."""
    counts = [0] * 10
    for seed in range(4000):
        counts[permuted(0, 10, draws.key(seed, "order/0"))] += 1
    assert sum((count - 400) ** 2 / 400 for count in counts) < 27.9


def test_neighbours_are_torn_apart() -> None:
    """In a random permutation of n about 2 of the n - 1 neighbouring pairs stay neighbours."""
    order = [permuted(i, 1000, 7) for i in range(1000)]
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 12
