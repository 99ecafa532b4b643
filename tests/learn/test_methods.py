"""The other methods on the one learner: gradients stop where they should, teachers follow, every recipe trains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

import layerlock
from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.learner import Learner
from layerlock.learn.masking import (
    FutureMasking,
    Masking,
    MultiBlockMasking,
    RandomMasking,
    SeveralMaskings,
    TubeMasking,
)
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.plans import Blockwise, JointEmbedding, LiveLatents, Progressive
from layerlock.learn.targets import FeatureTarget
from layerlock.model.separate import SeparateDecoding
from layerlock.recipes import recipe
from layerlock.train.loop import train

DECODING = SeparateDecoding(width=12, depth=1, heads=2, mlp=24)
MODEL = replace(tiny.MODEL, position="sincos", final_norm=True)
TUBE = TubeMasking(keep=0.34)
INDEX = torch.arange(3)
METHODS = [
    "videomae",
    "vjepa",
    "vjepa-layerlock",
    "vjepa-layerlock-own",
    "live-latents",
    "blockwise",
    "blockwise-sequential",
    "deep-supervision",
    "end-to-end",
]


def learner(stage: Stage, masking: Masking = TUBE) -> Learner:
    """Every parameter away from its first value."""
    made = Learner(MODEL, tiny.GRID, masking, DECODING, stage, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return made


def gradients(made: Learner) -> dict[str, Tensor]:
    made.step(tiny.video(3), INDEX)
    return {name: p.grad.clone() for name, p in made.live().items() if p.grad is not None}


def stage_of(regime: str, part: int = 0) -> Stage:
    return Blockwise(regime=regime, parts=3).build(30, 6, 6).timeline[part][1]  # type: ignore[arg-type]


def test_parts_that_learn_at_once_have_the_gradients_of_parts_that_learn_alone() -> None:
    together = gradients(learner(stage_of("simultaneous")))
    across = gradients(learner(stage_of("deep-supervision")))
    weights = learner(stage_of("simultaneous")).state()
    for part in range(3):
        alone = Learner(MODEL, tiny.GRID, TUBE, DECODING, stage_of("sequential", part), seed=3)
        for name, value in alone.state().items():
            value.copy_(weights[name])
        found = gradients(alone)
        assert any(name.startswith(f"vit.blocks.{2 * part}.") for name in found)
        assert not any(name.startswith(f"vit.blocks.{2 * part + 2}.") for name in found)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, together[name], rtol=0, atol=0)
    first = "vit.blocks.0.fc1.weight"
    assert not torch.allclose(across[first], together[first], rtol=1e-3)
    assert torch.equal(across["vit.blocks.5.fc1.weight"], together["vit.blocks.5.fc1.weight"])


def test_a_teacher_is_the_average_of_the_weights_and_shares_what_is_frozen() -> None:
    plan = JointEmbedding(climb=True, start=0.5, interval=0.2, first=1, jump=2).build(10, 6, 6)
    made = learner(plan.stage(0), MultiBlockMasking(blocks=2, group=4))
    assert made.teacher is not None
    expected = {name: value.clone() for name, value in made.teacher.vit.state_dict().items()}
    optimizer = torch.optim.SGD(made.live().values(), lr=0.1)
    for _ in range(3):
        made.step(tiny.video(3), INDEX)
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(0.9)
        for name, value in made.vit.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in made.teacher.vit.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    made.enter(plan.stage(7))
    assert made.teacher.vit.blocks[2] is made.vit.blocks[2]
    assert made.teacher.vit.blocks[3] is not made.vit.blocks[3]
    assert not any(name.startswith("teacher.vit.blocks.0.") for name in made.state())
    assert any(name.startswith("teacher.vit.blocks.5.") for name in made.state())


@pytest.mark.parametrize("teacher", [True, False])
def test_with_all_blocks_frozen_the_final_norm_is_too(teacher: bool) -> None:
    plan = JointEmbedding(climb=True, start=0.5, interval=0.2, first=5, jump=1, last=6, teacher=teacher)
    made = learner(plan.build(10, 6, 6).stage(0), MultiBlockMasking(blocks=2, group=4))
    for step, live in ((5, True), (7, False)):
        made.enter(plan.build(10, 6, 6).stage(step))
        assert ("vit.norm.weight" in made.live()) is live
        assert made.teacher is None or (made.teacher.vit.norm is made.vit.norm) is not live
    assert all(name.startswith(("decoders.", "heads.")) for name in made.live())
    made.step(tiny.video(3), INDEX)
    assert all(parameter.grad is not None for parameter in made.live().values())


def test_what_a_joint_embedding_predicts_is_the_normed_layer_at_masked_positions() -> None:
    made = learner(JointEmbedding().build(10, 6, 6).stage(0), MultiBlockMasking(blocks=2, group=4))
    (group,) = made.groups(tiny.video(3), INDEX)
    (prediction,) = group.predictions
    assert made.teacher is not None
    patches = layerlock.model.patches.patchify(tiny.video(3), MODEL.patch)
    whole = made.teacher.vit.intermediates(patches, [6])[0]
    whole = torch.nn.functional.layer_norm(whole, whole.shape[-1:])
    positions = prediction.positions_bq
    assert positions is not None
    expected = torch.gather(whole, 1, positions[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(prediction.target, expected)
    loss = (prediction.predicted - expected).abs().mean()
    torch.testing.assert_close(prediction.loss(), loss)


def test_a_rising_weight_scales_latent_losses_alone() -> None:
    plan = LiveLatents(layers=(1, 2), weight=2.0, ramp="cosine").build(11, 4, 6)
    weights = [plan.weights(step) for step in range(11)]
    assert weights[0] == {"h1": 0.0, "h2": 0.0}
    assert weights[5]["h1"] == pytest.approx(1.0)
    assert weights[10] == {"h1": 2.0, "h2": 2.0}
    made = [tiny.learner() for _ in range(3)]
    for one, factor in zip(made, (None, {"h1": 0.0, "h2": 0.0}, {"h1": 3.0}), strict=True):
        one.enter(plan.stage(0))
        one.step(tiny.video(2), INDEX[:2], weights=factor)
    heads = [one.heads["h1_at_4"].weight.grad for one in made]
    assert not heads[1].any()
    torch.testing.assert_close(heads[2], 3 * heads[0])
    pixels = [one.heads["pixels_at_4"].weight.grad for one in made]
    assert torch.equal(pixels[0], pixels[1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Blockwise(parts=5), "5 parts do not divide 6 blocks"),
        (Blockwise(cuts=(2, 4)), "end at block 4 of 6"),
        (Blockwise(cuts=(2, 8)), "end at block 8 of 6"),
        (Blockwise(regime="end-to-end", parts=7), "7 parts do not divide 6 blocks"),
        (Blockwise(regime="sequential", parts=3, times=(0.5,)), "1 times for 2 parts"),
    ],
)
def test_cuts_that_do_not_fit_are_told(plan: Blockwise, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.build(30, 6, 6)


def test_parts_beside_cuts_are_as_many() -> None:
    assert Blockwise(parts=2, cuts=(4, 6)).problems() == []
    assert Blockwise(parts=3, cuts=(4, 6)).problems() == ["plan.parts: 3, where plan.cuts end 2: (4, 6)"]


def shrunk(config: Config, out: Path) -> Config:
    """A method's config on six narrow blocks and clips of 36 tokens, for twelve updates."""
    separate = isinstance(config.decoder, SeparateDecoding)
    plan = replace(config.plan, parts=3) if isinstance(config.plan, Blockwise) else config.plan
    plan = replace(plan, last=5) if isinstance(plan, JointEmbedding) else plan
    plan = replace(plan, layers=(1, 2)) if isinstance(plan, LiveLatents) else plan
    masking = (
        replace(config.masking, blocks=2, group=2)
        if isinstance(config.masking, MultiBlockMasking)
        else (replace(config.masking, keep=0.34))
    )
    return tiny.config(
        out,
        recipe=config.recipe,
        model=replace(tiny.MODEL, position=config.model.position, gelu=config.model.gelu, final_norm=separate),
        masking=masking,
        decoder=DECODING if separate else tiny.DECODING,
        plan=plan,
        optim=replace(config.optim, mini_warmup=0.1, cycles=3 if config.optim.cycles > 1 else 1),
    )


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_resumes_exactly_and_loads(name: str, tmp_path: Path) -> None:
    config = recipe(f"{name}-tiny")
    trains_and_resumes_exactly(shrunk(config, tmp_path / "whole"), shrunk(config, tmp_path / "cut"))
    encoder = layerlock.load(tmp_path / "whole")
    assert encoder(tiny.video(2)).shape == (2, 36, 24)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    "masking", [RandomMasking(keep=0.2, keep_to=0.6, predict=0.5, group=3, masks=2), FutureMasking()]
)
def test_runs_of_other_maskings_resume_exactly(masking: Masking, tmp_path: Path) -> None:
    """Batches are of four samples, groups that share their number of tokens of three."""
    plan = Progressive(masked=True, target="frozen", start=0.5, last=2)
    whole, cut = (tiny.config(tmp_path / name, masking=masking, plan=plan) for name in ("whole", "cut"))
    trains_and_resumes_exactly(whole, cut)


def trains_and_resumes_exactly(config: Config, again: Config) -> None:
    """Trains; then once more from the run's first checkpoint on, in the folder of `again`."""
    whole, cut = Path(config.out), Path(again.out)
    train(config, quiet=True)
    shutil.copytree(whole, cut)
    for step in (8, 12):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    if not list((cut / "checkpoints").glob("step-*")):
        shutil.rmtree(cut)
    train(again, resume=cut.exists(), quiet=True)

    def learned(out: Path) -> list[dict[str, object]]:
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        return [{name: value for name, value in line.items() if name != "timing"} for line in lines]

    assert learned(cut) == learned(whole)
    assert (cut / "encoder" / "model.safetensors").read_bytes() == (
        whole / "encoder" / "model.safetensors"
    ).read_bytes()


def test_a_step_of_several_groups_is_the_mean_of_their_clips() -> None:
    masking = RandomMasking(keep=0.1, keep_to=0.7, predict=0.5, group=2)
    stage = Progressive(masked=True).build(10, 6, 6).stage(0)
    video, index = tiny.video(4), torch.tensor([3, 4, 5, 6])
    sizes = [masking.draw(3, index[part], tiny.GRID)[0].context_bk.shape[1] for part in masking.parts(index)]
    assert len(set(sizes)) == len(sizes) == 3
    together, alone = learner(stage, masking), learner(stage, masking)
    together.step(video, index)
    for i in range(4):
        alone.step(video[i : i + 1], index[i : i + 1], scale=0.25)
    for name, parameter in together.live().items():
        torch.testing.assert_close(parameter.grad, alone.live()[name].grad, atol=1e-6, rtol=1e-4)


def both(*, gradient: bool, detached_too: bool = False) -> Stage:
    """A live third layer beside the teacher's third and fifth; `detached_too`: a live second one without gradients."""
    targets = [
        FeatureTarget((3,), live=True, gradient=gradient),
        FeatureTarget((3,), "teacher"),
        FeatureTarget((5,), "teacher"),
        *([FeatureTarget((2,), live=True)] if detached_too else []),
    ]
    return Stage(frozen=0, last=6, taps=tuple(Tap(depth=6, target=target, masked=True) for target in targets))


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_live_layer_is_the_models_own_beside_the_teachers(frozen: int) -> None:
    stage = replace(both(gradient=False), frozen=frozen)
    made = learner(stage)  # which moves the student and the teacher apart
    assert made.teacher is not None
    (group,) = made.groups(tiny.video(3), INDEX)
    patches = layerlock.model.patches.patchify(tiny.video(3), MODEL.patch)
    for prediction, (vit, layer) in zip(
        group.predictions, ((made.vit, 3), (made.teacher.vit, 3), (made.teacher.vit, 5)), strict=True
    ):
        assert prediction.positions_bq is not None
        whole = vit.intermediates(patches, [layer])[0]
        wanted = torch.gather(whole, 1, prediction.positions_bq[..., None].expand(-1, -1, 24))
        torch.testing.assert_close(prediction.target, wanted, rtol=0, atol=0)
    assert not torch.allclose(group.predictions[0].target, group.predictions[1].target, rtol=1e-2)


@pytest.mark.parametrize("masks", [1, 2])
def test_gradients_go_into_live_targets_beside_a_teacher_and_into_no_other(masks: int) -> None:
    masking = SeveralMaskings(masks=(MultiBlockMasking(blocks=2, group=4),) * masks)
    found = []
    for stage in (both(gradient=False), both(gradient=True), both(gradient=True, detached_too=True)):
        made = learner(stage, masking)
        (group,) = made.groups(tiny.video(3), INDEX)
        found.append([prediction.target.requires_grad for prediction in group.predictions])
        made.step(tiny.video(3), INDEX)
        assert made.teacher is not None
        assert all(p.grad is None for name, p in made.named_parameters() if name.startswith("teacher."))
    assert found == [[False] * 3, [True, False, False], [True, False, False, False]]


def test_each_of_several_masks_has_its_own_mask_token_that_begins_at_zero() -> None:
    masking = SeveralMaskings(masks=(MultiBlockMasking(blocks=2, group=4),) * 2)
    decoding = replace(DECODING, mask_tokens=2, zero_tokens=True)
    stage = JointEmbedding().build(10, 6, 6).stage(0)
    made = Learner(MODEL, tiny.GRID, masking, decoding, stage, seed=3, first_weights="normal")
    token = made.decoders["at_6"].token
    assert token.shape == (2, 12)
    assert not token.any()
    made.step(tiny.video(3), INDEX)
    both, found = token.grad.clone(), []
    assert both.any(dim=1).all()
    for number, masks in enumerate(masking.draw(made.seed, INDEX, tiny.GRID)):
        made.zero_grad()
        (group,) = made.groups(tiny.video(3), INDEX, masks, None, number)
        (group.predictions[0].loss() / 2).backward()
        assert not token.grad[1 - number].any()
        found.append(token.grad[number])
    torch.testing.assert_close(torch.stack(found), both)
    assert made.vit.blocks[0].fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert made.decoders["at_6"].embed.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert made.heads["t6_at_6"].weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("masks", "tokens", "fine"), [(1, 1, True), (1, 2, False), (2, 1, True), (2, 2, True), (3, 2, False)]
)
def test_mask_tokens_are_one_or_as_many_as_masks(tmp_path: Path, masks: int, tokens: int, fine: bool) -> None:
    config = tiny.config(
        tmp_path,
        masking=SeveralMaskings(masks=(MultiBlockMasking(blocks=2, group=4),) * masks),
        decoder=replace(DECODING, mask_tokens=tokens),
        plan=JointEmbedding(),
    )
    if fine:
        config.check()
    else:
        with pytest.raises(ConfigError, match=rf"decoder\.mask_tokens: {tokens} for {masks} masks"):
            config.check()
