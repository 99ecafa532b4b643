"""Targets, losses and metrics of the tasks, against scikit-learn and loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluations import settings, tiny_encoder
from evaluations import task as task_of
from sklearn.metrics import top_k_accuracy_score
from test_sweep import depth_batch

from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape
from layerlock.model.patches import patchify

PAPER = ClipShape(frames=16, stride=2, size=224)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_top_1_and_top_5_are_scikit_learns() -> None:
    task, logits, label = task_of(settings(), classes=9), noise(40, 9), torch.arange(40) % 9
    found = task.score(logits, label).score_vm.mean(0).tolist()
    wanted = [top_k_accuracy_score(label, logits, k=k, labels=range(9)) for k in (1, 5)]
    assert found == pytest.approx(wanted)
    assert [metric.name for metric in task.metrics] == ["top-1", "top-5"]


@pytest.mark.parametrize("classes", [2, 5])
def test_top_5_of_few_classes_says_nothing_and_is_not_there(classes: int) -> None:
    task, logits, label = task_of(settings(), classes=classes), noise(40, classes), torch.arange(40) % classes
    assert [metric.name for metric in task.metrics] == ["top-1"]
    found = task.score(logits, label)
    assert found.score_vm[:, 0].tolist() == (logits.argmax(1) == label).double().tolist()
    assert found.score_vm.shape == (40, 1)


def test_the_softmax_of_a_videos_clips_is_averaged() -> None:
    task, logits = task_of(settings(views=7), classes=4), 3 * noise(3 * 7, 4)
    label = torch.tensor([0, 1, 2]).repeat_interleave(7)
    scored = task.score(logits, label)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    best = [shares[7 * video : 7 * video + 7].mean(0).argmax() for video in range(3)]
    assert scored.predicted_v.tolist() == best
    assert scored.score_vm[:, 0].tolist() == [float(best[video] == video) for video in range(3)]
    label[8] = -1  # a clip of the second video could not be decoded
    assert task.score(logits, label).score_vm[:, 0].isnan().tolist() == [False, True, False]


def test_defaults_follow_the_data_set() -> None:
    plain, ssv2, kinetics = (
        task_of(settings(channels=None, heads=None), layout=layout)
        for layout in ("class folders", "Something-Something v2", "Kinetics")
    )
    assert [(task.channels, task.heads, task.views) for task in (plain, ssv2, kinetics)] == [
        (1024, 16, 1), (768, 12, 1), (1024, 16, 7),
    ]  # fmt: skip
    action = settings().training_clip(PAPER)
    assert (action.resize_side, action.jitter, action.grayscale, action.flip, action.stride) == (
        239,
        0.8,
        0.1,
        False,
        2,
    )
    depth = settings(task="depth").training_clip(PAPER)
    assert (depth.resize_side, depth.jitter, depth.grayscale, depth.flip) == (239, 0.0, 0.0, True)
    assert settings(task="depth", flip="no").training_clip(PAPER).flip is False
    assert settings(flip="yes", jitter=0.5, stride=4).training_clip(PAPER).stride == 4
    tested = settings().still_clip(PAPER)
    assert (tested.resize_side, tested.jitter, tested.grayscale, tested.flip) == (239, 0.0, 0.0, False)


def test_the_papers_depth_readout_has_6272_queries_of_128_values() -> None:
    config = settings(task="depth", channels=None, heads=None)
    shape = task_of(config, clip=PAPER).shape("attention", tiny_encoder())
    assert (shape.queries, shape.outputs, shape.channels, shape.heads) == (6272, 128, 1024, 16)


def test_clips_without_a_label_teach_nothing() -> None:
    task, logits = task_of(settings(), classes=4), noise(6, 4)
    label = torch.tensor([0, 1, 2, 3, -1, -1])
    wanted = torch.nn.functional.cross_entropy(logits[:4], label[:4])
    torch.testing.assert_close(task.loss(logits, label), wanted)
    assert task.loss(logits, torch.full((6,), -1)) == 0
    assert task.summary(label).tolist() == [1, 1, 1, 1]


def test_depth_metrics_are_those_of_a_loop_over_what_was_measured() -> None:
    task = task_of(settings(task="depth"))
    target = task.target_of(depth_batch(3))
    assert ((target == 0) | ((target > 0.001) & (target < 10))).all()
    assert (target == 0).any()
    guess = (target + noise(3, 8, 24, 24)).where(target > 0, 7.0)
    found = task.score(guess, target).score_vm.numpy()
    for clip in range(3):
        pairs = [
            (p, d) for p, d in zip(guess[clip].flatten().tolist(), target[clip].flatten().tolist(), strict=True) if d
        ]
        wanted = [
            np.mean([abs(p - d) / (d + 1e-6) for p, d in pairs]),
            np.sqrt(np.mean([(p - d) ** 2 for p, d in pairs])),
            np.mean([p > 0 and max(p / d, d / p) < 1.25 for p, d in pairs]),
        ]
        np.testing.assert_allclose(found[clip], wanted, rtol=1e-5)
    wanted_loss = np.mean(
        [(p - d) ** 2 for p, d in zip(guess.flatten().tolist(), target.flatten().tolist(), strict=True) if d]
    )
    assert float(task.loss(guess, target)) == pytest.approx(wanted_loss, rel=1e-5)


def test_a_clip_without_depth_has_no_figure_and_no_loss() -> None:
    task, nothing = task_of(settings(task="depth")), torch.zeros(2, 8, 24, 24)
    assert task.score(nothing + 1, nothing).score_vm.isnan().all()
    assert task.loss(nothing + 1, nothing) == 0


@pytest.mark.parametrize("kind", ["attention", "linear"])
def test_outputs_are_put_where_their_patches_are(kind: str) -> None:
    encoder, truth = tiny_encoder(), noise(2, 8, 24, 24)
    task = task_of(settings(task="depth", query_patch=(4, 6, 12)))
    shape = task.shape(kind, encoder)
    wanted = (4, 6, 12) if kind == "attention" else (2, 8, 8)
    assert torch.equal(task.predict(shape, patchify(truth[:, :, None], wanted)), truth)


def test_the_constant_predictions_are_the_most_frequent_class_and_the_mean_of_what_was_measured() -> None:
    action = task_of(settings(), classes=4)
    summary = action.summary(torch.tensor([2, 2, 1])) + action.summary(torch.tensor([2, 3, 3]))
    assert action.score(action.constant_prediction(summary, 2), torch.tensor([2, 1])).score_vm[:, 0].tolist() == [1, 0]
    depth = task_of(settings(task="depth"))
    target = depth.target_of(depth_batch(6))
    target[:, 0, 0, 0] = 0  # never measured
    found = depth.constant_prediction(depth.summary(target[:2]) + depth.summary(target[2:]), 1)[0]
    assert found[1, 2, 3] == pytest.approx(np.mean([d for d in target[:, 1, 2, 3].tolist() if d]), rel=1e-5)
    assert found[0, 0, 0] == pytest.approx(target[target > 0].mean().item(), rel=1e-4)


def test_patches_of_queries_have_to_divide_the_clip() -> None:
    with pytest.raises(LayerlockError, match="query_patch: a patch of 2x7x8 does not divide 24 height"):
        task_of(settings(task="depth", query_patch=(2, 7, 8)))
