"""Which names are the frames of one video."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlock.data.decode.series import find_series


def pairs(first: str, firsts: range, second: str, seconds: range) -> list[str]:
    return [f"{first}{a}{second}{b:04d}" for a, b in itertools.product(firsts, seconds)]


@pytest.mark.parametrize(
    ("names", "expected", "alone"),
    [
        ([f"img_{n:05d}" for n in range(12)] + ["thumbnail"], {"img_*": 12}, ["thumbnail"]),
        ([f"IMG_{n}" for n in range(9)] + [f"img_{n:03d}" for n in range(9, 12)], {"IMG_*": 12}, []),
        ([f"{kind}_{n}" for kind in ("img", "flow_x") for n in range(3)], {"flow_x_*": 3, "img_*": 3}, []),
        (pairs("cam", range(1, 3), "_", range(20)), {"cam1_*": 20, "cam2_*": 20}, []),
        (
            pairs("cam", range(1), "_", range(90)) + pairs("cam", range(1, 2), "_", range(5)),
            {"cam0_*": 90, "cam1_*": 5},
            [],
        ),
        (pairs("", range(1, 4), "_", range(9)), {"1_*": 9, "2_*": 9, "3_*": 9}, []),
        (pairs("part", range(1), "_", range(5)) + pairs("part", range(1, 2), "_", range(5, 9)), {"part*_*": 9}, []),
        ([f"frame_{n:04d}_v2" for n in range(5)], {"frame_*_v2": 5}, []),
        ([f"{n}_at_{n * 40 + 3}" for n in range(5)], {"*_at_*": 5}, []),
        ([f"13050311{s:02d}.{f:06d}" for s in range(4) for f in (0, 33333, 66666)], {"*": 12}, []),
        ([f"2021-03-04_12-{m:02d}-{s:02d}" for m in range(3) for s in range(0, 60, 9)], {"*": 21}, []),
        (["frame", "frame (2)", "frame (3)"], {"frame (*)": 2}, ["frame"]),
        (["a", "b", "mask"], {}, ["a", "b", "mask"]),
        ([], {}, []),
    ],
)
def test_series_are_told_from_names(names: list[str], expected: dict[str, int], alone: list[str]) -> None:
    for order in (names, names[::-1]):
        series, rest = find_series(order)
        assert {one.pattern.lower(): len(one.names) for one in series} == {k.lower(): n for k, n in expected.items()}
        assert rest == alone


def test_frames_are_in_the_order_of_their_numbers() -> None:
    ((series,), _) = find_series(["f10", "f9", "f0011", "f2"])
    assert series.names == ("f2", "f9", "f10", "f0011")


def test_two_names_of_one_number_are_refused() -> None:
    with pytest.raises(ValueError, match="a03 and a3"):
        find_series(["a03", "a3", "a4"])


@given(st.sets(st.text("ab_-.(1029", min_size=1, max_size=9), max_size=12))
def test_no_name_is_lost_or_in_two_series(names: set[str]) -> None:
    try:
        series, alone = find_series(names)
    except ValueError:
        return
    found = [name for one in series for name in one.names] + alone
    assert sorted(found) == sorted(names)
    assert all(len(one.names) > 1 for one in series)
