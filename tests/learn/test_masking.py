"""Masks: exact counts, uniform, the same however a batch is split, and V-JEPA's against a rendering in plain loops."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from layerlock.learn.masking import (
    Counts,
    FutureMasking,
    Masking,
    Masks,
    MultiBlockMasking,
    RandomMasking,
    SeveralMaskings,
    TubeMasking,
    random_subset,
)
from layerlock.learn.masking.blocks import ATTEMPTS
from layerlock.model.patches import Grid

VIT_GRID = (8, 14, 14)
SMALL_GRID = (3, 6, 5)
GROUPS = 1_000
SHORT, LONG = SeveralMaskings().masks
MASKINGS: list[Masking] = [
    RandomMasking(keep=0.2),
    RandomMasking(keep=0.1, keep_to=0.4, group=4, predict=0.5, masks=2),
    TubeMasking(keep=0.3),
    FutureMasking(past=0.7, keep=0.3),
    MultiBlockMasking(blocks=3, group=4),
    MultiBlockMasking(blocks=2, area=(0.1, 0.4), group=1),
    SeveralMaskings(masks=(MultiBlockMasking(blocks=5, area=(0.15, 0.2), group=4), replace(LONG, group=6))),
]


def draw_rows(masking: Masking, index_b: Tensor, grid: Grid, seed: int = 5) -> list[list[Masks]]:
    """The masks of each sample by itself, drawn part by part as a learner does."""
    rows: list[list[Masks]] = []
    for part in masking.parts(index_b):
        drawn = masking.draw(seed, index_b[part], grid)
        for i in range(part.stop - part.start):
            rows.append([Masks(context_bk=m.context_bk[i], predicted_bq=at(m.predicted_bq, i)) for m in drawn])
    assert len(rows) == len(index_b)
    return rows


def at(position_bq: Tensor | None, row: int) -> Tensor | None:
    return None if position_bq is None else position_bq[row]


def same(one: list[Masks], other: list[Masks]) -> bool:
    def equal(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b is None or (a is not None and b is not None and torch.equal(a, b))

    return len(one) == len(other) and all(
        equal(a.context_bk, b.context_bk) and equal(a.predicted_bq, b.predicted_bq)
        for a, b in zip(one, other, strict=True)
    )


# --- what all maskings promise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", MASKINGS)
@settings(max_examples=15)
@given(indices=st.lists(st.integers(0, 40) | st.integers(0, 10**9), min_size=1, max_size=12))
def test_masks_depend_on_seed_and_own_index_alone(masking: Masking, indices: list[int]) -> None:
    together = draw_rows(masking, torch.tensor(indices), SMALL_GRID)
    narrow = draw_rows(masking, torch.tensor(indices, dtype=torch.int32), SMALL_GRID)
    backwards = draw_rows(masking, torch.tensor(indices[::-1]), SMALL_GRID)[::-1]
    for row, index in enumerate(indices):
        alone = draw_rows(masking, torch.tensor([index]), SMALL_GRID)[0]
        assert same(together[row], alone)
        assert same(narrow[row], alone)
        assert same(backwards[row], alone)


@pytest.mark.parametrize("masking", MASKINGS)
def test_seeds_and_indices_give_other_masks(masking: Masking) -> None:
    rows = draw_rows(masking, torch.arange(24), SMALL_GRID) + draw_rows(masking, torch.arange(24), SMALL_GRID, seed=6)
    for number in range(len(rows[0])):
        assert len({tuple(row[number].context_bk.tolist()) for row in rows}) > 8  # of 48; large blocks have few corners


@pytest.mark.parametrize("masking", MASKINGS)
def test_positions_ascend_and_nothing_is_both_seen_and_predicted(masking: Masking) -> None:
    tokens = math.prod(SMALL_GRID)
    assert masking.problems(SMALL_GRID) == []
    for row in draw_rows(masking, torch.arange(200), SMALL_GRID):
        for masks in row:
            for positions in (masks.context_bk, masks.predicted_bq):
                if positions is not None:
                    assert positions.dtype == torch.int64
                    assert len(positions) > 0
                    assert (positions.diff() > 0).all()
                    assert positions.min() >= 0
                    assert positions.max() < tokens
            if masks.predicted_bq is not None:
                assert not np.intersect1d(masks.context_bk, masks.predicted_bq).size


@pytest.mark.parametrize("masking", MASKINGS)
def test_parts_are_the_runs_that_stack(masking: Masking) -> None:
    index = torch.tensor([3, 4, 5, 6, 7, 8, 20, 21, 3, 12])
    parts = masking.parts(index)
    assert [i for part in parts for i in range(*part.indices(len(index)))] == list(range(len(index)))
    if isinstance(masking, MultiBlockMasking) or (isinstance(masking, RandomMasking) and masking.keep_to):
        of = [index[part] // masking.group for part in parts]
        assert all((groups == groups[0]).all() for groups in of)
        assert all(a[-1] != b[0] for a, b in pairwise(of))
    elif isinstance(masking, SeveralMaskings):  # groups of 4 and of 6
        assert [index[part].tolist() for part in parts] == [[3], [4, 5], [6, 7], [8], [20, 21], [3], [12]]
    else:
        assert parts == [slice(0, 10)]


# --- random ----------------------------------------------------------------------------------------------------------


def test_random_masks_never_change() -> None:
    few = RandomMasking(keep=0.15).draw(3, torch.tensor([0, 7, 10**9]), (3, 4, 4))[0]
    assert few.predicted_bq is None
    assert few.context_bk.tolist() == [
        [13, 20, 24, 26, 38, 43, 44],
        [5, 23, 24, 26, 35, 40, 45],
        [4, 7, 15, 22, 25, 35, 38],
    ]
    many = RandomMasking(keep=0.05).draw(0, torch.arange(20), VIT_GRID)[0].context_bk
    digest = "98c3a1e3f5261f22abe3ea211e2b859f9d0b0d2d9bf0afffab69c5f81275361f"
    assert hashlib.sha256(many.numpy().tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("keep", "grid", "count"), [(0.05, VIT_GRID, 78), (0.10, VIT_GRID, 157), (0.15, (4, 6, 6), 22)]
)
def test_random_keeps_exactly_the_rounded_share(keep: float, grid: Grid, count: int) -> None:
    masking = RandomMasking(keep=keep)
    assert masking.counts(grid) == [Counts(context=count, predicted=0)]
    assert masking.draw(0, torch.arange(20), grid)[0].context_bk.shape == (20, count)


def test_every_place_and_time_is_kept_equally_often() -> None:
    grid = (8, 7, 7)
    context = RandomMasking(keep=0.05).draw(0, torch.arange(4_000), grid)[0].context_bk
    counts = np.bincount(context.flatten().numpy(), minlength=8 * 7 * 7).reshape(grid)
    for axes in ((1, 2), (0, 2), (0, 1), ()):
        observed = counts.sum(axis=axes).flatten() if axes else counts.flatten()
        assert stats.chisquare(observed).pvalue > 0.001


def test_pairs_of_tokens_are_kept_together_as_often_as_chance() -> None:
    kept = torch.zeros(20_000, 12)
    kept.scatter_(1, random_subset(1, "context", torch.arange(20_000), 12, 3), 1.0)
    together = (kept.T @ kept)[~torch.eye(12, dtype=torch.bool)]
    share = 20_000 * 3 * 2 / (12 * 11)
    assert (together - share).abs().max() < 5 * share**0.5


def test_purposes_give_other_subsets() -> None:
    index = torch.arange(8)
    assert not torch.equal(random_subset(0, "a", index, 100, 10), random_subset(0, "b", index, 100, 10))


@pytest.mark.parametrize(("keep", "tokens"), [(0.0, 100), (1.0, 100), (-0.1, 100), (0.99, 10)])
@pytest.mark.parametrize("kind", [RandomMasking, TubeMasking])
def test_shares_that_leave_nothing_or_everything_are_problems(
    kind: type[RandomMasking | TubeMasking], keep: float, tokens: int
) -> None:
    assert all(problem.startswith("masking.keep: ") for problem in kind(keep=keep).problems((1, 1, tokens)))
    assert len(kind(keep=keep).problems((1, 1, tokens))) == 1
    assert kind(keep=0.5).problems((1, 1, tokens)) == []


def test_problems_say_what_is_left() -> None:
    assert RandomMasking(keep=0.001).problems((4, 6, 6)) == ["masking.keep: 0.001 of 144 tokens leaves 0 as context"]
    assert RandomMasking(keep=0.01).problems((1, 4, 5)) == ["masking.keep: 0.01 of 20 tokens leaves 0 as context"]
    assert TubeMasking(keep=0.99).problems((4, 6, 6)) == ["masking.keep: 0.99 of 36 places leaves 36 as context"]


# --- random, of a share that varies ----------------------------------------------------------------------------------


def test_a_share_that_varies_gives_each_group_one_of_all_numbers_equally_often() -> None:
    masking = RandomMasking(keep=0.1, keep_to=0.3, predict=0.25, group=4)  # 9 to 27 of 90 tokens
    (counts,) = masking.counts(SMALL_GRID)
    kept, predicted = [], []
    for group in range(2_000):
        (masks,) = masking.draw(0, torch.arange(4 * group, 4 * group + 4), SMALL_GRID)
        assert masks.predicted_bq is not None
        assert masks.predicted_bq.shape[1] == round((90 - masks.context_bk.shape[1]) * 0.25)
        kept.append(masks.context_bk.shape[1])
        predicted.append(masks.predicted_bq.shape[1])
    assert (min(kept), max(kept)) == (9, 27)
    assert stats.chisquare(np.bincount(kept)[9:]).pvalue > 0.001
    assert counts.context == 18
    assert counts.predicted == np.mean([round((90 - k) * 0.25) for k in range(9, 28)])
    assert abs(np.mean(predicted) - counts.predicted) < 4 * np.std(predicted) / math.sqrt(2_000)
    assert abs(np.corrcoef(kept[1:], kept[:-1])[0, 1]) < 0.1


def test_a_share_that_varies_depends_on_the_seed_and_each_mask_has_its_own() -> None:
    masking = RandomMasking(keep=0.1, keep_to=0.6, group=2, masks=2)
    sizes = {
        seed: [
            [m.context_bk.shape[1] for m in masking.draw(seed, torch.tensor([i]), VIT_GRID)] for i in range(0, 40, 2)
        ]
        for seed in (1, 2)
    }
    assert sizes[1] != sizes[2]
    assert [one for one, _ in sizes[1]] != [other for _, other in sizes[1]]


def test_a_range_of_one_share_draws_what_the_share_alone_draws() -> None:
    index = torch.arange(6)
    fixed, varying = RandomMasking(keep=0.2), RandomMasking(keep=0.2, keep_to=0.2)
    assert same(fixed.draw(3, index, SMALL_GRID), varying.draw(3, index, SMALL_GRID))
    assert fixed.counts(SMALL_GRID) == varying.counts(SMALL_GRID)


def test_samples_that_see_different_numbers_of_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="parts"):
        RandomMasking(keep=0.1, keep_to=0.5).draw(0, torch.tensor([31, 32]), VIT_GRID)


@pytest.mark.parametrize(
    ("masking", "words"),
    [
        (RandomMasking(keep=0.3, keep_to=0.2), "masking.keep_to: 0.2 must be from masking.keep, 0.3, to below 1"),
        (RandomMasking(keep=0.3, keep_to=1.0), "masking.keep_to: 1.0 must be from masking.keep, 0.3, to below 1"),
        (RandomMasking(keep=0.3, keep_to=0.0), "masking.keep_to: 0.0 must be from masking.keep, 0.3, to below 1"),
        (RandomMasking(keep=0.3, keep_to=0.999), "masking.keep_to: 0.999 of 90 tokens leaves 90 as context"),
        (RandomMasking(keep=0.001, keep_to=0.5), "masking.keep: 0.001 of 90 tokens leaves 0 as context"),
        (RandomMasking(keep=0.3, keep_to=0.5, group=0), "masking.group: 0 is not positive"),
        (RandomMasking(keep=0.3, group=8), "masking.group: only used with masking.keep_to"),
        (
            RandomMasking(keep=0.3, keep_to=0.98, predict=0.2),  # of 2 masked tokens
            "masking.predict: 0.2 of 2 masked tokens leaves 0 to predict",
        ),
    ],
)
def test_shares_that_cannot_be_drawn_are_problems(masking: RandomMasking, words: str) -> None:
    assert masking.problems(SMALL_GRID) == [words]


# --- the future ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masking", "grid", "context", "predicted"),
    [
        (FutureMasking(), VIT_GRID, 4 * 196 // 2, 4 * 196 // 2),
        (FutureMasking(past=0.75, keep=0.1, predict=1.0), VIT_GRID, 118, 2 * 196),
        (FutureMasking(past=0.25, keep=1.0, predict=0.05), VIT_GRID, 2 * 196, 59),
        (FutureMasking(past=0.6, keep=0.5), SMALL_GRID, 30, 15),
    ],
)
def test_the_future_is_predicted_from_the_past_alone(
    masking: FutureMasking, grid: Grid, context: int, predicted: int
) -> None:
    assert masking.problems(grid) == []
    assert masking.counts(grid) == [Counts(context=context, predicted=predicted)]
    (masks,) = masking.draw(0, torch.arange(50), grid)
    assert masks.predicted_bq is not None
    assert (masks.context_bk.shape, masks.predicted_bq.shape) == ((50, context), (50, predicted))
    boundary = round(grid[0] * masking.past) * grid[1] * grid[2]
    assert masks.context_bk.max() < boundary <= masks.predicted_bq.min()
    assert masks.context_bk.max() >= boundary - grid[1] * grid[2], "the last of the past is seen too"
    assert masks.predicted_bq.max() >= math.prod(grid) - grid[1] * grid[2]


def test_past_and_future_are_drawn_uniformly() -> None:
    grid = (4, 5, 5)
    (masks,) = FutureMasking(keep=0.2, predict=0.3).draw(0, torch.arange(4_000), grid)
    assert masks.predicted_bq is not None
    for position_bk, begin in ((masks.context_bk, 0), (masks.predicted_bq, 50)):
        counts = np.bincount(position_bk.flatten().numpy() - begin, minlength=50)
        assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    ("masking", "words"),
    [
        (FutureMasking(past=0.0), "masking.past: 0.0 must be above 0 and at most 1"),
        (FutureMasking(past=1.0), "masking.past: 1.0 of 3 times leaves 3 as context, 0 later"),
        (FutureMasking(past=0.1), "masking.past: 0.1 of 3 times leaves 0 as context, 3 later"),
        (FutureMasking(keep=1.5), "masking.keep: 1.5 must be above 0 and at most 1"),
        (FutureMasking(keep=0.001), "masking.keep: 0.001 of 60 tokens leaves none as context"),
        (FutureMasking(predict=-0.5), "masking.predict: -0.5 must be above 0 and at most 1"),
        (FutureMasking(predict=0.01), "masking.predict: 0.01 of 30 tokens leaves none to predict"),
    ],
)
def test_shares_that_leave_no_past_or_no_future_are_problems(masking: FutureMasking, words: str) -> None:
    assert masking.problems(SMALL_GRID) == [words]


# --- tubes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
@pytest.mark.parametrize("side", [3, 5, 6, 7, 8, 10, 12, 14, 16])
def test_tubes_are_counted_as_in_videomaes_code(masked: float, side: int) -> None:
    places = side * side
    (counts,) = TubeMasking(keep=1 - masked).counts((8, side, side))
    assert counts.predicted == 8 * int(masked * places)
    assert counts.context == 8 * (places - int(masked * places))


@pytest.mark.parametrize(("keep", "grid", "places"), [(0.1, VIT_GRID, 20), (0.1, (2, 8, 8), 7), (0.5, SMALL_GRID, 15)])
def test_tubes_keep_the_same_places_at_all_times_and_predict_the_rest(keep: float, grid: Grid, places: int) -> None:
    masking = TubeMasking(keep=keep)
    masks = masking.draw(0, torch.arange(10), grid)[0]
    tokens = math.prod(grid)
    assert masking.counts(grid) == [Counts(context=grid[0] * places, predicted=tokens - grid[0] * places)]
    assert masks.predicted_bq is not None
    for context, predicted in zip(masks.context_bk, masks.predicted_bq, strict=True):
        seen = torch.zeros(tokens, dtype=torch.bool)
        seen[context] = True
        at_time = seen.view(grid[0], -1)
        assert (at_time == at_time[0]).all()
        assert at_time[0].sum() == places
        assert torch.equal(predicted, (~seen).nonzero().flatten())


def test_tubes_stand_everywhere_equally_often() -> None:
    grid = (2, 7, 7)
    context = TubeMasking(keep=0.1).draw(0, torch.arange(4_000), grid)[0].context_bk
    counts = np.bincount(context.flatten().numpy(), minlength=98)[:49]
    assert stats.chisquare(counts).pvalue > 0.001


# --- multi-block -----------------------------------------------------------------------------------------------------


def rendered_group(masking: MultiBlockMasking, grid: Grid, rng: np.random.Generator) -> list[np.ndarray]:
    """What V-JEPA's masks are, block by block: for each sample of a group, which tokens `[T, H, W]` are predicted."""
    _, height, width = grid
    most = int(height * width * rng.uniform(*masking.area))
    aspect = rng.uniform(*masking.aspect)
    high = min(round(math.sqrt(most * aspect)), height)
    wide = min(round(math.sqrt(most / aspect)), width)
    samples = []
    for _ in range(masking.group):
        predicted = np.ones(grid, dtype=bool)
        while predicted.all():
            predicted = np.zeros(grid, dtype=bool)
            for _ in range(masking.blocks):
                top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
                predicted[:, top : top + high, left : left + wide] = True
        samples.append(predicted)
    return samples


def rendered_counts(masking: MultiBlockMasking, grid: Grid, groups: int) -> np.ndarray:
    """Context and predicted tokens of the smallest member of each group: `[groups, 2]`."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(groups):
        predicted = [int(sample.sum()) for sample in rendered_group(masking, grid, rng)]
        found.append((math.prod(grid) - max(predicted), min(predicted)))
    return np.array(found)


def drawn(masking: MultiBlockMasking, grid: Grid, groups: int = GROUPS) -> list[Masks]:
    """The mask of one sample of each group, not always the same member."""
    index = [group * masking.group + group % masking.group for group in range(groups)]
    return [masking.draw(0, torch.tensor([i]), grid)[0] for i in index]


def drawn_counts(masking: MultiBlockMasking, grid: Grid, groups: int) -> np.ndarray:
    masks = drawn(masking, grid, groups)
    return np.array([(m.context_bk.shape[1], m.predicted_bq.shape[1]) for m in masks if m.predicted_bq is not None])


@pytest.mark.parametrize(
    ("masking", "grid", "groups"),
    [
        (MultiBlockMasking(group=1), VIT_GRID, GROUPS),
        (MultiBlockMasking(), VIT_GRID, GROUPS),
        (SHORT, VIT_GRID, 300),
        (LONG, VIT_GRID, 500),
        (MultiBlockMasking(blocks=3, area=(0.1, 0.8), aspect=(0.3, 3.0), group=3), (2, 6, 9), GROUPS),
        (MultiBlockMasking(blocks=2, area=(0.8, 0.8), aspect=(1.0, 1.5), group=4), (2, 6, 6), 500),
    ],
)
def test_counts_are_those_of_the_definition(masking: MultiBlockMasking, grid: Grid, groups: int) -> None:
    ours, theirs = drawn_counts(masking, grid, groups), rendered_counts(masking, grid, groups)
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / groups)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all()
    for column in range(2):
        assert stats.ks_2samp(ours[:, column], theirs[:, column], method="asymp").pvalue > 0.001
    expected = np.array(masking.counts(grid)[0])
    assert (np.abs(ours.mean(axis=0) - expected) < 4 * error).all()


@pytest.mark.parametrize(
    ("area", "aspect", "size"),
    [
        (0.3, 1.5, (9, 6)),
        (0.29, 1.0, (7, 7)),  # of 56 places: 0.29 * 196 = 56.84 would make 8 x 8
        (0.7, 1.5, (14, 10)),  # 14.3 high before it is cut to the grid
    ],
)
def test_a_block_has_the_size_of_the_definition(area: float, aspect: float, size: tuple[int, int]) -> None:
    masking = MultiBlockMasking(blocks=1, area=(area, area), aspect=(aspect, aspect))
    predicted_bq = masking.draw(0, torch.arange(24), VIT_GRID)[0].predicted_bq
    assert predicted_bq is not None
    for predicted in predicted_bq:
        y, x = predicted % 196 // 14, predicted % 14
        assert (y.max() - y.min() + 1, x.max() - x.min() + 1) == size
        assert len(predicted) == 8 * size[0] * size[1]


def test_table_9_predicts_78_percent_before_members_are_cut_to_the_smallest() -> None:
    context, predicted = drawn_counts(MultiBlockMasking(group=1), VIT_GRID, GROUPS).T / math.prod(VIT_GRID)
    assert predicted.mean() == pytest.approx(0.78, abs=0.01)
    assert np.allclose(context + predicted, 1)


def test_blocks_stand_where_the_definition_puts_them() -> None:
    masking = MultiBlockMasking(group=1)
    rng = np.random.default_rng(8)
    theirs = np.mean([rendered_group(masking, VIT_GRID, rng)[0][0] for _ in range(GROUPS)], axis=0)
    ours = np.zeros(math.prod(VIT_GRID))
    for masks in drawn(masking, VIT_GRID):
        assert masks.predicted_bq is not None
        ours[masks.predicted_bq[0]] += 1 / GROUPS
    for at_time in ours.reshape(VIT_GRID):
        assert np.abs(at_time - theirs).max() < 4.5 * math.sqrt(2 * 0.25 / GROUPS)
    assert theirs[7, 7] > theirs[0, 0] + 0.5  # corners are rarely covered: a difference the bound above would see


def times_pvalue(positions: list[np.ndarray]) -> float:
    """How likely so unequal a use of the times is, were all equally likely."""
    return float(stats.chisquare(np.bincount(np.concatenate(positions) // (14 * 14), minlength=8)).pvalue)


def test_kept_tokens_are_uniform_over_time_where_raster_order_is_not() -> None:
    masks = drawn(MultiBlockMasking(), VIT_GRID)
    assert times_pvalue([m.context_bk[0].numpy() for m in masks]) > 0.001
    assert times_pvalue([m.predicted_bq[0].numpy() for m in masks if m.predicted_bq is not None]) > 0.001
    rng, raster = np.random.default_rng(9), []
    for _ in range(50):
        contexts = [(~sample.ravel()).nonzero()[0] for sample in rendered_group(MultiBlockMasking(), VIT_GRID, rng)]
        fewest = min(map(len, contexts))
        raster.append(contexts[0][:fewest])
    assert times_pvalue(raster) < 1e-6


def test_a_group_has_one_block_size_and_the_counts_of_its_smallest_member() -> None:
    single = MultiBlockMasking(blocks=1, area=(0.1, 0.6), group=24)
    sizes = set()
    for group in range(20):
        masks = single.draw(0, torch.arange(24 * group, 24 * group + 24), VIT_GRID)[0]
        assert masks.predicted_bq is not None
        assert masks.context_bk.shape[1] + masks.predicted_bq.shape[1] == math.prod(VIT_GRID)
        assert len({tuple(row.tolist()) for row in masks.predicted_bq}) > 4  # each member its own corner
        sizes.add(masks.predicted_bq.shape[1])
    assert len(sizes) > 10
    cut = MultiBlockMasking().draw(0, torch.arange(24), VIT_GRID)[0]
    assert cut.predicted_bq is not None
    assert cut.context_bk.shape[1] + cut.predicted_bq.shape[1] < math.prod(VIT_GRID)


def test_samples_of_several_groups_are_refused() -> None:
    masking = MultiBlockMasking()
    with pytest.raises(ValueError, match="parts"):
        masking.draw(0, torch.tensor([23, 24]), VIT_GRID)


@pytest.mark.parametrize(
    "masking",
    [
        MultiBlockMasking(blocks=4, area=(0.8, 0.8), aspect=(1.4, 1.5), group=2),  # one draw in four leaves no context
        MultiBlockMasking(blocks=100, area=(0.7, 0.7), group=2),  # every draw does, but for the last attempt
    ],
)
def test_no_context_is_ever_empty(masking: MultiBlockMasking) -> None:
    for group in range(40):
        masks = masking.draw(0, torch.arange(2 * group, 2 * group + 2), (2, 6, 6))[0]
        assert masks.predicted_bq is not None
        assert masks.context_bk.shape[1] > 0
        assert masks.predicted_bq.shape[1] > 0


def test_one_mask_waits_for_no_more_than_the_bounded_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    attempt = MultiBlockMasking._attempt

    def counted(self: MultiBlockMasking, seed: int, group_g: Tensor, grid: Grid, number: int) -> Tensor:
        calls.append(number)
        return attempt(self, seed, group_g, grid, number)

    monkeypatch.setattr(MultiBlockMasking, "_attempt", counted)
    MultiBlockMasking().draw(0, torch.arange(24), VIT_GRID)
    assert calls == [0]
    MultiBlockMasking(blocks=100, area=(0.7, 0.7)).draw(0, torch.arange(24), (2, 6, 6))
    assert calls[1:] == list(range(ATTEMPTS + 1))


@pytest.mark.parametrize(
    ("masking", "field"),
    [
        (MultiBlockMasking(blocks=0), "blocks"),
        (MultiBlockMasking(group=0), "group"),
        (MultiBlockMasking(area=(0.5, 0.3)), "area"),
        (MultiBlockMasking(area=(0.0, 0.3)), "area"),
        (MultiBlockMasking(area=(0.3, 1.1)), "area"),
        (MultiBlockMasking(area=(math.nan, 0.3)), "area"),
        (MultiBlockMasking(aspect=(0.0, 1.0)), "aspect"),
        (MultiBlockMasking(aspect=(1.0, math.inf)), "aspect"),
        (MultiBlockMasking(area=(0.004, 0.3)), "area"),  # less than a place
        (MultiBlockMasking(area=(0.006, 0.3), aspect=(0.2, 1.5)), "area"),  # a place, too flat for a whole one
        (MultiBlockMasking(area=(0.3, 0.99)), "area"),  # a block of 14 x 14
        (MultiBlockMasking(blocks=60, area=(0.7, 0.7)), "blocks"),
        (MultiBlockMasking(blocks=10**6), "blocks"),
    ],
)
def test_settings_that_leave_no_context_or_no_target_are_problems(masking: MultiBlockMasking, field: str) -> None:
    problems = masking.problems(VIT_GRID)
    assert len(problems) == 1
    assert problems[0].startswith(f"masking.{field}: ")


def test_a_grid_too_small_for_the_blocks_is_a_problem() -> None:
    assert MultiBlockMasking().problems((8, 1, 1))
    assert MultiBlockMasking().problems((8, 3, 3)) == []


@given(
    high=st.integers(1, 9),
    wide=st.integers(1, 9),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    aspect=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_what_has_no_problems_draws(high: int, wide: int, area: list[float], aspect: list[float]) -> None:
    masking = MultiBlockMasking(blocks=1, area=(area[0], area[1]), aspect=(aspect[0], aspect[1]), group=500)
    if not masking.problems((1, high, wide)):
        masks = masking.draw(0, torch.arange(500), (1, high, wide))[0]
        assert masks.predicted_bq is not None
        assert 0 < masks.context_bk.shape[1] < high * wide
        assert masks.predicted_bq.shape[1] == high * wide - masks.context_bk.shape[1]


# --- several ---------------------------------------------------------------------------------------------------------


def test_several_masks_are_each_their_own_and_independent() -> None:
    twins = SeveralMaskings(masks=(SHORT, SHORT, LONG))
    one, other, long = twins.draw(0, torch.arange(24), VIT_GRID)
    assert not same([one], [other])
    counts = twins.counts(VIT_GRID)
    assert counts == [*SHORT.counts(VIT_GRID), *SHORT.counts(VIT_GRID), *LONG.counts(VIT_GRID)]
    assert long.context_bk.shape[1] < one.context_bk.shape[1]


def test_problems_of_several_masks_name_the_mask() -> None:
    assert SeveralMaskings().problems(VIT_GRID) == []
    assert SeveralMaskings(masks=()).problems(VIT_GRID) == ["masking.masks: there is none"]
    wrong = SeveralMaskings(masks=(SHORT, replace(LONG, blocks=0)))
    assert wrong.problems(VIT_GRID) == ["masking.masks[1].blocks: 0 is not positive"]
