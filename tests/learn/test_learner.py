"""Structure: what a switch freezes, keeps and drops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import DECODING, GRID, MASKING, MODEL, PIXEL_STAGE, learner, lock_stage, video
from torch import Tensor

from layerlock.config import OptimConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage, Tap
from layerlock.model.patches import patchify
from layerlock.model.vit import Dense
from layerlock.train.optimizer import build_optimizer, moments_of

OPTIM = OptimConfig(lr=1e-2)
INDEX = torch.arange(2)


def train(made: Learner, optimizer: torch.optim.Optimizer, updates: int = 2) -> None:
    for _ in range(updates):
        made.step(video(2), INDEX)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def switch(made: Learner, optimizer: torch.optim.AdamW, stage: Stage) -> torch.optim.AdamW:
    moments = moments_of(made, optimizer)
    made.enter(stage)
    return build_optimizer(made, OPTIM, moments)


def copies(made: Learner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in made.named_parameters()}


def is_frozen(name: str, blocks: int) -> bool:
    return name.startswith("vit.embed") or any(name.startswith(f"vit.blocks.{i}.") for i in range(blocks))


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_frozen_weights_keep_every_bit_after_the_one_cast_at_their_switch(compute: torch.dtype) -> None:
    made = learner(compute=compute)
    optimizer = build_optimizer(made, OPTIM)
    train(made, optimizer)
    at_switch: dict[str, Tensor] = {}
    for blocks in (1, 2, 4):
        trained = copies(made)
        optimizer = switch(made, optimizer, lock_stage(blocks))
        for name, value in made.named_parameters():
            if is_frozen(name, blocks) and name not in at_switch:
                at_switch[name] = value.detach().clone()
                assert value.dtype == compute, name
                assert torch.equal(value, trained[name].to(value.dtype)), name
        live = copies(made)
        train(made, optimizer)
        for name, value in made.named_parameters():
            assert torch.equal(value, live[name]) == (name in at_switch), name
    assert len(at_switch) == 2 + 4 * 12
    for name, value in at_switch.items():
        assert torch.equal(made.get_parameter(name), value), name


def test_frozen_weights_have_no_gradient_and_no_optimizer_state() -> None:
    made = learner()
    optimizer = build_optimizer(made, OPTIM)
    made.step(video(2), INDEX)  # leaves gradient buffers behind
    optimizer.step()
    optimizer = switch(made, optimizer, lock_stage(2))
    assert all(p.grad is None for name, p in made.named_parameters() if is_frozen(name, 2))
    made.step(video(2), INDEX)
    optimizer.step()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in made.named_parameters():
        frozen = is_frozen(name, 2)
        assert (parameter.grad is None) == frozen, name
        assert (id(parameter) not in held) == frozen, name
        assert (parameter not in optimizer.state) == frozen, name


def test_nothing_is_kept_for_backward_by_frozen_blocks() -> None:
    made = learner(stage=lock_stage(3))
    seen: dict[int, bool] = {}
    for number, block in enumerate(made.vit.blocks):
        block.register_forward_hook(
            lambda _, inputs, output, number=number: seen.update({number: output.requires_grad})
        )
    made.step(video(2), INDEX)
    assert [seen[i] for i in range(6)] == [False, False, False, True, True, True]


def test_the_context_passes_each_block_once_and_the_target_no_deeper_than_it_has_to() -> None:
    made = learner(stage=lock_stage(2, frozen=3))
    ran: list[tuple[int, int]] = []
    for number, block in enumerate(made.vit.blocks, start=1):
        block.register_forward_hook(lambda _, inputs, output, number=number: ran.append((number, inputs[0].shape[1])))
    made.step(video(2), INDEX)
    assert sorted(ran) == sorted([(n, 9) for n in (1, 2, 3, 4)] + [(1, 36), (2, 36)] + [(5, 45), (6, 45)])


def test_the_target_of_a_fixed_clip_stays_the_same_bit_for_bit() -> None:
    made = learner(compute=torch.bfloat16)
    optimizer = switch(made, build_optimizer(made, OPTIM), lock_stage(2))

    @torch.no_grad()
    def target() -> Tensor:
        return made.vit.intermediates(patchify(video(2), MODEL.patch) / 255, [2])[0]

    before = target()
    train(made, optimizer)
    optimizer = switch(made, optimizer, lock_stage(3))
    train(made, optimizer)
    assert torch.equal(target(), before)
    (group,) = made.groups(video(2), INDEX)
    assert not torch.equal(group.predictions[0].target, before.float()), "h3 by now"


def test_live_blocks_keep_their_moments_through_a_switch_and_new_heads_have_none() -> None:
    made = learner()
    optimizer = build_optimizer(made, OPTIM)
    train(made, optimizer, updates=3)
    before, parameters = moments_of(made, optimizer), dict(made.named_parameters())
    values = {name: {kind: x.clone() for kind, x in moments.items()} for name, moments in before.items()}
    optimizer = switch(made, optimizer, lock_stage(2))
    after = moments_of(made, optimizer)
    live = {name for name in parameters if name.startswith("vit.") and not is_frozen(name, 2)}
    assert after.keys() == live
    for name in live:
        assert made.get_parameter(name) is parameters[name]
        for kind, value in after[name].items():
            assert value is before[name][kind]
            assert torch.equal(value, values[name][kind])
    assert set(made.heads) == {"h2_at_4"}
    train(made, optimizer, updates=1)
    assert float(moments_of(made, optimizer)["heads.h2_at_4.weight"]["step"]) == 1
    assert float(moments_of(made, optimizer)["vit.blocks.5.fc1.weight"]["step"]) == 4


def test_heads_of_targets_that_stay_are_kept_and_others_go() -> None:
    made = learner(stage=lock_stage(1))
    first = made.heads["h1_at_4"]
    made.enter(lock_stage(1, 2))
    assert made.heads["h1_at_4"] is first
    made.enter(lock_stage(2))
    assert set(made.heads) == {"h2_at_4"}


def test_a_new_head_is_the_same_whatever_came_before() -> None:
    straight, through = learner(), learner()
    straight.enter(lock_stage(2))
    through.enter(PIXEL_STAGE)
    through.enter(lock_stage(1))
    through.enter(lock_stage(2))
    assert torch.equal(straight.heads["h2_at_4"].weight, through.heads["h2_at_4"].weight)


def test_entering_a_stage_again_changes_nothing() -> None:
    made = learner(compute=torch.bfloat16, stage=lock_stage(2))
    before = copies(made)
    made.enter(lock_stage(2))
    assert all(torch.equal(value, before[name]) for name, value in made.named_parameters())


@pytest.mark.parametrize("position", ["sincos", "learned", "none", "rope-attention", "rope"])
@pytest.mark.parametrize("tokens", ["position", "learned"])
def test_decoding_tokens_are_learned_where_they_have_to_be_or_are_asked_for(position: str, tokens: str) -> None:
    made = learner(replace(MODEL, position=position), BackboneDecoding(blocks=2, tokens=tokens))  # type: ignore[arg-type]
    loss = made.step(video(2), INDEX).losses["pixels"]
    assert loss.isfinite()
    learned = tokens == "learned" or position != "rope"
    assert (made.decoder.token is not None) == learned
    if made.decoder.token is not None:
        assert made.decoder.token.grad is not None
        assert made.decoder.token.grad.abs().sum() > 0
    decoding = made.decoder.tokens(made.vit, None)
    assert len(decoding.unique(dim=0)) == 36, "each position has its own"
    some = torch.tensor([[3, 35]])
    assert torch.equal(made.decoder.tokens(made.vit, some)[0], decoding[some[0]])


def test_learned_positions_freeze_with_the_patch_projection() -> None:
    made = learner(replace(MODEL, position="learned"))
    made.step(video(2), INDEX)
    assert made.vit.position.grad is not None
    made.enter(lock_stage(1))
    made.zero_grad()
    before = made.vit.position.detach().clone()
    train(made, build_optimizer(made, OPTIM))
    assert not made.vit.position.requires_grad
    assert torch.equal(made.vit.position, before)


def test_freezing_into_the_decoder_leaves_its_upper_blocks_and_the_head() -> None:
    stage = Stage(frozen=5, last=6, taps=(Tap(depth=4),))
    made = Learner(MODEL, GRID, MASKING, replace(DECODING, tokens="learned"), stage)
    before = copies(made)
    train(made, build_optimizer(made, OPTIM))
    changed = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    assert all(name.startswith(("vit.blocks.5.", "heads.")) for name in changed)
    assert {name for name in before if name.startswith(("vit.blocks.5.", "heads."))} == changed


def test_a_range_of_blocks_that_moves_trains_where_it_stands() -> None:
    made = learner()
    moved = []
    for frozen, last in ((0, 1), (1, 2), (2, 6)):
        made.enter(Stage(frozen=frozen, last=last, taps=(Tap(depth=min(last, 4)),)))
        moved.append({int(n.split(".")[2]) for n in made.live() if n.startswith("vit.blocks.")})
        made.step(video(2), INDEX)
        assert all(p.grad is not None for p in made.live().values())
        made.zero_grad()
    assert moved == [{0}, {1}, {2, 3, 4, 5}]


def test_first_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Learner(MODEL, GRID, MASKING, DECODING, PIXEL_STAGE, seed=4)
    torch.manual_seed(2)
    again, other = (Learner(MODEL, GRID, MASKING, DECODING, PIXEL_STAGE, seed=seed) for seed in (4, 5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.vit.embed.weight, other.vit.embed.weight)
    assert all(isinstance(part, Dense) for part in first.modules() if isinstance(part, torch.nn.Linear))
