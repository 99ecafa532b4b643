"""New heads begin as the ridge regression from their input to their target; targets get the scale that they have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.head_start import batches_needed, start_heads
from layerlock.learn.learner import Learner
from layerlock.learn.masking import RandomMasking, TubeMasking
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.sums import RIDGE, Sums
from layerlock.learn.targets import PIXELS, TEACHER, FeatureTarget, PatchTarget
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import ViTConfig

SHAPE = ViTConfig(width=24, depth=4, mlp=48, heads=2, patch=(2, 4, 4))
GRID = (2, 4, 4)


Clips = list[tuple[torch.Tensor, torch.Tensor]]


def clips(batches: int, of: int = 16) -> Clips:
    """Noise, each clip's about a brightness of its own."""
    g = torch.Generator().manual_seed(0)
    return [
        (
            (torch.rand(of, 4, 3, 16, 16, generator=g) + torch.rand(of, 1, 1, 1, 1, generator=g)) / 2,
            torch.arange(n * of, (n + 1) * of, dtype=torch.int64),
        )
        for n in range(batches)
    ]


def learner(stage: Stage, *, separate: bool = False) -> Learner:
    decoding = SeparateDecoding(width=24, depth=1, heads=2, mlp=48) if separate else BackboneDecoding(blocks=1)
    model = ViTConfig(width=24, depth=4, mlp=48, heads=2, patch=(2, 4, 4), position="sincos") if separate else SHAPE
    made = Learner(model, GRID, RandomMasking(keep=0.25, predict=0.5), decoding, stage)
    return made


def rows(
    made: Learner, data: list[tuple[torch.Tensor, torch.Tensor]], number: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the only head over all clips."""
    x, y = [], []
    with torch.no_grad():
        for video, index in data:
            (group,) = made.groups(video, index)
            x.append(group.predictions[0].decoded.flatten(0, 1))
            y.append(group.predictions[0].target.flatten(0, 1))
    return torch.cat(x).double().numpy(), torch.cat(y).double().numpy()


def predicting(frozen: int, target: PatchTarget | FeatureTarget, *, depth: int = 3, masked: bool = True) -> Stage:
    return Stage(frozen=frozen, last=4, taps=(Tap(depth=depth, target=target, masked=masked),))


STAGES = {
    "patches": (predicting(0, PIXELS), False),
    "motion, all positions": (predicting(0, PatchTarget("motion"), masked=False), False),
    "a frozen block": (predicting(2, FeatureTarget((2,))), False),
    "two frozen blocks": (predicting(2, FeatureTarget((1, 2)), masked=False), False),
    "a teacher": (predicting(0, FeatureTarget((4,), TEACHER, normalized=True), depth=4), True),
    "a live block": (predicting(0, FeatureTarget((2,), live=True), masked=False), False),
    "standardised": (predicting(2, FeatureTarget((2,), standardized=True)), False),
}


@pytest.mark.parametrize("kind", STAGES)
def test_a_new_head_is_the_ridge_regression_of_its_target(kind: str) -> None:
    stage, separate = STAGES[kind]
    made, data = learner(stage, separate=separate), clips(8)
    (start,) = start_heads(made, data, solve=True).values()
    x, y = rows(made, data)
    ridge = RIDGE * x.var(axis=0).mean() * len(x)
    oracle = Ridge(alpha=ridge).fit(x, y)
    (head,) = made.heads.values()
    predicted = head(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(predicted, oracle.predict(x), atol=2e-4 * max(1, np.abs(y).max()))
    assert start.tokens == len(x)
    assert start.problem == ""


@pytest.mark.parametrize("kind", ["a frozen block", "standardised"])
def test_what_a_head_explains_is_told_of_clips_that_it_was_not_solved_on(kind: str) -> None:
    made, data = learner(STAGES[kind][0]), clips(8)
    (start,) = start_heads(made, data, solve=True).values()
    fit = [batch for number, batch in enumerate(data) if (number + 1) % 4]
    held = [batch for number, batch in enumerate(data) if (number + 1) % 4 == 0]
    x, y = rows(made, fit)
    oracle = Ridge(alpha=RIDGE * x.var(axis=0).mean() * len(x)).fit(x, y)
    x, y = rows(made, held)
    explained = 1 - ((oracle.predict(x) - y) ** 2).mean() / y.var(axis=0).mean()
    assert start.explained == pytest.approx(explained, abs=1e-4)
    assert 0 < start.explained < 1


def test_standardised_targets_have_mean_0_and_deviation_1() -> None:
    made, data = learner(STAGES["standardised"][0]), clips(8)
    start_heads(made, data, solve=False)
    _, y = rows(made, data)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-3)


def test_the_scale_of_a_target_is_part_of_the_state_and_is_not_trained() -> None:
    made = learner(STAGES["standardised"][0])
    (name,) = made.scales
    assert f"scales.{name}" in made.state()
    assert f"scales.{name}" not in made.live()


def test_heads_that_stay_are_left_as_they_are() -> None:
    first = STAGES["patches"][0]
    made, data = learner(first), clips(8)
    start_heads(made, data, solve=True)
    kept = made.heads["pixels_at_3"].weight.clone()
    both = Stage(
        frozen=1, last=4, taps=(Tap(depth=3, masked=True), Tap(depth=3, target=FeatureTarget((1,)), masked=True))
    )
    made.enter(both)
    assert list(start_heads(made, data, solve=True)) == ["h1_at_3"]
    assert torch.equal(made.heads["pixels_at_3"].weight, kept)


def test_without_a_wish_nothing_is_read() -> None:
    made = learner(STAGES["a frozen block"][0])
    before = {name: value.clone() for name, value in made.state().items()}
    assert batches_needed(made, 16, solve=False) == 0
    assert start_heads(made, iter(()), solve=False) == {}
    assert all(torch.equal(before[name], value) for name, value in made.state().items())


def test_batches_give_tokens_enough_for_what_is_predicted() -> None:
    made = learner(STAGES["a frozen block"][0])
    predicted = RandomMasking(keep=0.25, predict=0.5).counts(GRID)[0].predicted
    assert batches_needed(made, 16, solve=True) == max(4, math.ceil(32 * 24 / (16 * predicted)))


BAD = {
    "all tokens the same": (lambda x, y: (torch.ones_like(x), y), "the same for all tokens"),
    "an input that is not finite": (lambda x, y: (x.clone().fill_(math.nan), y), "not finite"),
    "a target that is not finite": (lambda x, y: (x, y.clone().fill_(math.inf)), "not finite"),
    "fewer tokens than inputs": (lambda x, y: (x[:10], y[:10]), "10 tokens are too few for 24 inputs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_solved_is_told(case: str) -> None:
    spoil, words = BAD[case]
    x, y = spoil(torch.randn(500, 24), torch.randn(500, 5))
    sums = Sums(24, 5, x.device)
    sums.add(x, y)
    with pytest.raises(ValueError, match=words):
        sums.regression()


def test_a_head_that_cannot_be_solved_keeps_its_weights() -> None:
    made = learner(STAGES["a frozen block"][0])
    before = made.heads["h2_at_3"].weight.clone()
    broken = [(video * math.nan, index) for video, index in clips(4)]
    (start,) = start_heads(made, broken, solve=True).values()
    assert "not finite" in start.problem
    assert torch.equal(made.heads["h2_at_3"].weight, before)


def constant(made: Learner) -> None:
    """A decoder that says nothing, of any token."""
    for parameter in made.decoders.parameters():
        parameter.zero_()


def broken_teacher(made: Learner) -> None:
    assert made.teacher is not None
    made.teacher.vit.blocks[3].fc2.bias.fill_(math.nan)


@pytest.mark.parametrize(
    ("stage", "spoil", "batches", "words"),
    [
        ("a teacher", constant, 4, "what it is given is the same for all tokens"),
        ("a teacher", broken_teacher, 4, "what it is given, or its target, is not finite"),
        ("patches", lambda made: None, 1, "12 tokens are too few for 24 inputs"),
    ],
)
def test_a_head_that_cannot_be_solved_says_why_and_begins_as_usual(
    stage: str, spoil: Callable[[Learner], None], batches: int, words: str
) -> None:
    made = learner(STAGES[stage][0], separate=STAGES[stage][1])
    with torch.no_grad():
        spoil(made)
    (head,) = made.heads.values()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    (start,) = start_heads(made, clips(batches, of=1 if batches == 1 else 16), solve=True).values()
    assert start.problem == words
    assert math.isnan(start.explained)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_in_bfloat16_a_head_is_solved_as_precisely() -> None:
    made, data = learner(STAGES["a frozen block"][0]), clips(8)
    made.vit.compute = torch.bfloat16
    made.enter(made.stage)
    (start,) = start_heads(made, data, solve=True).values()
    (group,) = made.groups(*data[0])
    assert group.predictions[0].decoded.dtype == torch.bfloat16
    x, y = rows(made, data)
    oracle = Ridge(alpha=RIDGE * x.var(axis=0).mean() * len(x)).fit(x, y)
    (head,) = made.heads.values()
    assert head.weight.dtype == torch.float32
    np.testing.assert_allclose(head.weight.detach().numpy(), oracle.coef_, atol=1e-4 * np.abs(oracle.coef_).max())
    assert 0 < start.explained < 1


@pytest.mark.parametrize("case", ["a target without variance", "no batch to hold out"])
def test_where_nothing_shows_what_a_head_explains_none_is_told(case: str) -> None:
    made, data = learner(STAGES["patches"][0]), clips(8)
    if case == "no batch to hold out":
        data = data[:3]
    else:
        data = [(torch.full_like(video, 0.5) + 0 * video, index) for video, index in data]
    (start,) = start_heads(made, data, solve=True).values()
    assert (start.problem, math.isnan(start.explained)) == ("", True)
    assert (next(iter(made.heads.values())).weight.abs().max() < 1e-6) == (case == "a target without variance")


def test_tubes_can_predict_a_share_of_their_places() -> None:
    masking = TubeMasking(keep=0.25, predict=0.5)
    (masks,) = masking.draw(0, torch.arange(3), GRID)
    assert masks.predicted_bq is not None
    assert masks.predicted_bq.shape == (3, round(masking.counts(GRID)[0].predicted)) == (3, 12)
    assert not set(masks.predicted_bq[0].tolist()) & set(masks.context_bk[0].tolist())
