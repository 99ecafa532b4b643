"""Readouts trained side by side: each as if alone, on one pass of the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from evaluations import clips, settings, tiny_encoder
from evaluations import task as task_of

from layerlock.data import Batch
from layerlock.encoders.checks import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.readouts import Candidate, blocks_of, candidates_of
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks.task import TRAINED
from layerlock.features import Reader

CPU = torch.device("cpu")


def action_sweep(
    config: EvaluateConfig, members: tuple[Candidate, ...], encoders: Mapping[str, FrozenEncoder]
) -> Sweep:
    return Sweep(config, task_of(config), members, encoders, CPU)


def reader(encoders: Mapping[str, FrozenEncoder], members: Sequence[Candidate]) -> Reader:
    return Reader(encoders, [member.place for member in members])


def weights(sweep: Sweep, setting: Candidate) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in sweep.readouts[setting].parameters()])


def depth_batch(count: int) -> Batch:
    generator = torch.Generator().manual_seed(5)
    depth_bthw = 20 * torch.rand(count, 8, 24, 24, generator=generator) - 5
    return Batch(
        index_b=torch.arange(count),
        names=("clip",) * count,
        video_btchw=clips(count),
        crop_b4=torch.tensor([[0.0, 0.0, 24.0, 24.0]]).expand(count, 4),
        flip_b=torch.zeros(count, dtype=torch.bool),
        size=24,
        targets={"depth": depth_bthw},
    )


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("action", {}),
        ("action", {"queries": 4, "heads": None, "dropout": 0.3}),
        ("depth", {"query_patch": (2, 12, 12), "dropout": 0.3}),
    ],
    ids=["action", "several queries with dropout", "depth with dropout"],
)
def test_every_readout_learns_exactly_what_it_learns_alone(task: str, changes: dict[str, Any]) -> None:
    config, encoders = settings(task=task, **changes), {"encoder": tiny_encoder()}
    members = tuple(member for member in candidates_of(config, encoders) if member.kind in TRAINED)
    assert len(members) == 2 * 2 * 2
    batch = depth_batch(8)
    target = task_of(config).target_of(batch) if task == "depth" else torch.arange(8) % 4

    def trained(chosen: tuple[Candidate, ...]) -> Sweep:
        sweep = Sweep(config, task_of(config), chosen, encoders, CPU)
        features = reader(encoders, chosen).read(batch.video_btchw)
        for _ in range(4):
            sweep.train_step(features, target)
        return sweep

    together = trained(members)
    for member in members:
        assert torch.equal(weights(together, member), weights(trained((member,)), member)), member


@pytest.mark.parametrize("queries", [None, 4])
def test_dropout_leaves_channels_out_of_a_step_and_none_of_a_prediction(queries: int | None) -> None:
    changes: dict[str, Any] = {"queries": queries, "heads": None, "channels": 256, "depths": (1.0,), "lrs": (1e-3,)}
    encoders, target = {"encoder": tiny_encoder()}, torch.arange(1)
    gradients = {}
    for share in (0.0, 0.3):
        config = settings(readout="attention", dropout=share, **changes)
        (member,) = members = candidates_of(config, encoders)
        sweep = action_sweep(config, members, encoders)
        features = reader(encoders, members).read(clips(1))
        before = sweep.predict(member, features)
        assert torch.equal(before, sweep.readouts[member].read(features[member.place])[:, 0])
        for step in (0, 1):
            sweep.step = step
            sweep._backward(member, features[member.place], target)
            gradients[share, step] = sweep.readouts[member].out.weight.grad.clone()  # type: ignore[union-attr]
            sweep.optimizer.zero_grad()
        assert torch.equal(before, sweep.predict(member, features))
    assert torch.equal(gradients[0.0, 0], gradients[0.0, 1])
    assert gradients[0.0, 0].all()
    left_out = [(gradients[0.3, step] == 0).all(0) for step in (0, 1)]
    assert all(0.2 < float(one.double().mean()) < 0.4 for one in left_out)
    assert not torch.equal(*left_out)


def test_learning_rates_begin_alike_depths_do_not_and_they_end_apart() -> None:
    config, encoders = settings(), {"encoder": tiny_encoder()}
    members = candidates_of(replace(config, readout="attention"), encoders)
    sweep = action_sweep(config, members, encoders)
    slow_3, fast_3, slow_6, _ = sorted(members, key=lambda member: (member.block, member.lr))
    assert torch.equal(weights(sweep, slow_3), weights(sweep, fast_3))
    assert not torch.equal(weights(sweep, slow_3), weights(sweep, slow_6))
    sweep.train_step(reader(encoders, members).read(clips(8)), torch.arange(8) % 4)
    assert not torch.equal(weights(sweep, slow_3), weights(sweep, fast_3))


def test_readouts_learn_32_clips_by_heart() -> None:
    config = settings(examples=32 * 150, batch=32, lrs=(1e-3, 1e-2), depths=(1.0,), readout="attention", warmup=0.1)
    encoders = {"encoder": tiny_encoder()}
    members = candidates_of(config, encoders)
    sweep, label = action_sweep(config, members, encoders), torch.arange(32) * 7 % 4
    features = reader(encoders, members).read(clips(32))
    first = sweep.train_step(features, label)
    for _ in range(config.steps - 1):
        last = sweep.train_step(features, label)
    fast = max(members, key=lambda member: member.lr)
    assert (sweep.predict(fast, features).argmax(1) == label).all()
    assert last[fast] < 0.1 * first[fast]


def test_several_queries_learn_what_clips_of_a_class_have_in_common() -> None:
    changes: dict[str, Any] = {"queries": 4, "heads": None, "readout": "attention", "depths": (1.0,)}
    config = settings(examples=16 * 60, batch=16, lrs=(3e-2,), **changes)
    encoders, label = {"encoder": tiny_encoder()}, torch.arange(16) % 4
    (member,) = members = candidates_of(config, encoders)
    sweep = action_sweep(config, members, encoders)
    for step in range(config.steps):
        video = clips(16, seed=step) // (label + 1)[:, None, None, None, None].to(torch.uint8)
        features = reader(encoders, members).read(video)
        loss = sweep.train_step(features, label)[member]
    assert loss < 0.5  # of a guess: 1.39
    assert (sweep.predict(member, features).argmax(1) == label).double().mean() > 0.75


def test_the_encoder_runs_once_a_batch_and_no_deeper_than_its_deepest_readout(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, asked = tiny_encoder(), list[list[int]]()
    original = encoder.forward_intermediates

    def counted(video: torch.Tensor, indices: Any, **more: Any) -> Any:
        asked.append(list(indices))
        return original(video, indices, **more)

    monkeypatch.setattr(encoder, "forward_intermediates", counted)
    config = settings(depths=(0.2, 0.5, 0.7), lrs=(1e-4, 3e-4, 1e-3))
    members = candidates_of(config, {"encoder": encoder})
    assert len(members) == 18 + 3
    features = reader({"encoder": encoder}, members).read(clips(2))
    assert len(asked) == 1
    assert sorted(asked[0]) == [1, 3, 4]
    assert not any(x.requires_grad for x in features.values())
    for block in (1, 3, 4):
        x = features["encoder", block]
        torch.testing.assert_close(x.mean(-1), torch.zeros_like(x[..., 0]), atol=1e-5, rtol=0)


def test_fractions_that_mean_one_block_are_one() -> None:
    assert blocks_of((0.25, 0.5, 0.75, 0.85, 0.95, 1.0), tiny_encoder()) == {6: 1.0, 5: 0.85, 4: 0.75, 3: 0.5, 1: 0.25}


def test_a_readout_whose_loss_is_not_finite_is_dropped_and_the_others_learn_as_before() -> None:
    config, encoders = settings(), {"encoder": tiny_encoder()}
    members = candidates_of(config, encoders)
    features, target = reader(encoders, members).read(clips(8)), torch.arange(8) % 4
    sweep, alone = (action_sweep(config, chosen, encoders) for chosen in (members, members[1:]))
    for step in range(4):
        if step == 1:
            with torch.no_grad():
                sweep.readouts[members[0]].out.weight[0, 0] = torch.inf
        losses = sweep.train_step(features, target)
        alone.train_step(features, target)
        assert (members[0] in losses) == (step < 2)
    assert sweep.dropped == {members[0]: "its loss is not finite at step 1; try a lower learning rate"}
    assert all(torch.equal(weights(sweep, setting), weights(alone, setting)) for setting in members[1:])
    lone = action_sweep(config, members[:1], encoders)
    with torch.no_grad():
        lone.readouts[members[0]].out.bias[0] = torch.nan
    lone._begin_at = lambda output: None  # type: ignore[method-assign]
    with pytest.raises(
        LayerlockError, match=r"all 1 readouts were dropped; the first, encoder/attention/6/0\.001: its"
    ):
        lone.train_step(features, target)


def test_a_clip_whose_features_are_not_finite_teaches_nothing_and_drops_no_readout() -> None:
    config, encoders = settings(), {"encoder": tiny_encoder()}
    members = candidates_of(config, encoders)
    features, target = reader(encoders, members).read(clips(8)), torch.arange(8) % 4
    bad, without = (action_sweep(config, members, encoders) for _ in range(2))
    spoilt = {place: x.index_fill(0, torch.tensor([2]), torch.nan) for place, x in features.items()}
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    for _ in range(3):
        bad.train_step(spoilt, target)
        without.train_step({place: x[kept] for place, x in features.items()}, target[kept])
    assert not bad.dropped
    assert all(torch.equal(weights(bad, setting), weights(without, setting)) for setting in members)


def test_matrices_decay_and_norms_biases_queries_and_times_do_not() -> None:
    config, encoders = settings(readout="attention", lrs=(1e-3,), depths=(1.0,)), {"encoder": tiny_encoder()}
    sweep = action_sweep(config, candidates_of(config, encoders), encoders)
    (readout,) = sweep.readouts.values()
    decayed = {id(p) for group in sweep.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, parameter in readout.named_parameters() if id(parameter) in decayed}
    assert names == {f"{part}.weight" for part in ("key", "value", "mix", "fc1", "fc2", "out")}


@pytest.mark.parametrize("kind", ["attention", "linear"])
def test_readouts_of_depth_begin_at_the_mean_depth(kind: str) -> None:
    config = settings(task="depth", query_patch=(2, 12, 12), readout=kind, lrs=(1e-9,))
    encoders = {"encoder": tiny_encoder()}
    members, batch = candidates_of(config, encoders), depth_batch(8)
    sweep = Sweep(config, task_of(config), members, encoders, CPU)
    target, features = task_of(config).target_of(batch), reader(encoders, members).read(batch.video_btchw)
    mean = target[target > 0].mean()
    losses = sweep.train_step(features, target)
    for setting, loss in losses.items():
        torch.testing.assert_close(sweep.readouts[setting].out.bias, mean.expand(sweep.shapes[setting].outputs))
        assert loss < 0.5 * target[target > 0].square().mean()
    first = {setting: readout.out.bias.clone() for setting, readout in sweep.readouts.items()}
    sweep.train_step(features, target + 1)
    for setting, bias in first.items():
        torch.testing.assert_close(sweep.readouts[setting].out.bias, bias)
