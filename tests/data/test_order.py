from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis.strategies import DataObject, data, integers

from layerlock import draws
from layerlock.data import order
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


def inverse(image: int, count: int, key: int) -> int:
    """The position of an element: the rounds of the network backwards, until the value is in range."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = image
    while True:
        left, right = value >> half, value & mask
        for turn in reversed(range(4)):
            left, right = right ^ (order._hash(key + (turn << 56) + left) & mask), left
        value = left << half | right
        if value < count:
            return value


@settings(max_examples=1000, deadline=None)
@given(count=integers(1, 2**40), key=integers(-(2**63), 2**63 - 1), data=data())
def test_every_element_has_one_position(count: int, key: int, data: DataObject) -> None:
    """A way back from each element that is met: no other position leads there."""
    position = data.draw(integers(0, count - 1))
    image = permuted(position, count, key)
    assert 0 <= image < count
    assert inverse(image, count, key) == position


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(ValueError, match="not in range"):
        permuted(position, 10, 0)


def test_every_epoch_has_each_video_once_in_another_order() -> None:
    epochs = [[video_at(epoch * 50 + i, 50, seed=3) for i in range(50)] for epoch in range(20)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert epochs[0] != [video_at(i, 50, seed=4) for i in range(50)]


def test_those_after_it_are_the_rest_of_its_epoch_and_then_its_start() -> None:
    epoch = [video_at(100 + i, 50, seed=3) for i in range(50)]
    assert list(order.videos_from(100 + 45, 50, 3, 8)) == [*epoch[45:], *epoch[:3]]
    assert sorted(order.videos_from(7, 5, 3, 20)) == list(range(5))


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
