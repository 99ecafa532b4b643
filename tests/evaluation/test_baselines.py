"""Baselines are encoders like any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import clips, settings, task, tiny_encoder

from layerlock.encoders.checks import check_features, fingerprint
from layerlock.errors import LayerlockError
from layerlock.evaluation.baselines import (
    POSITION,
    DifferenceEncoder,
    MotionStatistics,
    PixelEncoder,
    baseline_encoders,
)
from layerlock.evaluation.readouts import build_readout, candidates_of
from layerlock.features import Reader, mean_pooled
from layerlock.model.encoder import ClipShape, Encoder


def test_pixels_are_the_means_of_their_squares_with_their_place() -> None:
    encoder, video = PixelEncoder(tiny_encoder().clip, (4, 3, 3)), clips(2)
    (found,) = encoder.forward_intermediates(video, [1])
    assert found.shape == (2, 36, encoder.width)
    token = (2 * 3 + 1) * 3 + 2  # frames 4 and 5, rows 8 to 15, columns 16 to 23: four by four squares of two by two
    square = video[1, 5, :, 10:12, 20:22].float().mean((1, 2)) / 255
    values = found[1, token, : encoder.width - POSITION].unflatten(0, (2, 4, 4, 3))
    torch.testing.assert_close(values[1, 1, 2], square)
    assert torch.equal(found[0, :, -POSITION:], found[1, :, -POSITION:])
    assert len(found[0, :, -POSITION:].unique(dim=0)) == 36


def test_differences_see_change_alone() -> None:
    encoder, video = DifferenceEncoder(tiny_encoder().clip, (4, 3, 3)), clips(1)
    still = video[:, :1].expand_as(video)
    (found,) = encoder.forward_intermediates(still, [1])
    assert (found[..., :-POSITION] == 0).all()
    pixels = PixelEncoder(encoder.clip, encoder.grid).forward_intermediates(video, [1])[0][..., :-POSITION]
    changes = encoder.forward_intermediates(video, [1])[0][..., :-POSITION]
    half = pixels.shape[-1] // 2
    torch.testing.assert_close(changes[..., :half], pixels[..., half:] - pixels[..., :half])
    assert (changes[:, -9:, half:] == 0).all()


def test_all_have_the_shape_that_they_say_and_random_weights_are_not_the_encoders() -> None:
    ours = tiny_encoder()
    made = baseline_encoders(ours, seed=0)
    for name, encoder in made.items():
        check_features(encoder, torch.device("cpu"))
        assert (encoder.clip, encoder.grid) == (ours.clip, (1, 1, 1) if name == "motion statistics" else ours.grid)
    assert made["random weights"].depth == ours.depth
    assert len({fingerprint(encoder) for encoder in (ours, *made.values())}) == 5
    assert fingerprint(ours) == fingerprint(tiny_encoder())


@pytest.mark.parametrize("floating", [False, True])
def test_motion_statistics_are_numpys_and_are_read_as_they_are(floating: bool) -> None:
    video = clips(3) // torch.tensor([1, 2, 200], dtype=torch.uint8)[:, None, None, None, None]
    found = Reader({"motion": MotionStatistics(tiny_encoder().clip)}, [("motion", 1)]).read(
        video / 255 if floating else video
    )["motion", 1]
    change = np.abs(np.diff(video.double().numpy() / 255, axis=1))
    wanted = [
        [x.mean(), x.std(), x.max(), x.mean((1, 2, 3)).std(), np.quantile(x, 0.99, method="higher")] for x in change
    ]
    np.testing.assert_allclose(found[:, 0].numpy(), wanted, rtol=2e-5)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["solved"]),
        ({"readout": "linear"}, []),
        ({"task": "regression", "column": "number", "appearance": "no"}, ["solved"]),
        ({"task": "depth", "query_patch": (2, 12, 12)}, []),
        ({"task": "retrieval"}, []),
    ],
)
def test_motion_statistics_are_read_by_solved_readouts_of_a_class_or_a_number(
    changes: dict[str, Any], kinds: list[str]
) -> None:
    config, motion = settings(**changes), MotionStatistics(tiny_encoder().clip)
    members = candidates_of(config, {"motion": motion})
    assert [member.kind for member in members] == kinds
    for member in members:
        readout = build_readout(member, motion, task(config).shape(member.kind, motion), seed=0)
        x_b1d = motion.forward_intermediates(clips(2), [1])[0]
        inputs_bw = readout.inputs(x_b1d)[:, 0]  # type: ignore[union-attr]
        assert torch.equal(inputs_bw, torch.cat([x_b1d[:, 0], torch.zeros(2, 5)], 1))


def test_motion_statistics_are_pooled_as_other_features_are() -> None:
    motion, video = MotionStatistics(tiny_encoder().clip), clips(2)
    found = Reader({"motion": motion}, [("motion", 1)], mean_pooled).read(video)["motion", 1]
    assert torch.equal(found, motion.forward_intermediates(video, [1])[0][:, 0])


def test_one_frame_has_no_motion() -> None:
    encoder = tiny_encoder()
    still = Encoder.random(replace(encoder.vit.config, patch=(1, 8, 8)), replace(encoder.clip, frames=1))
    assert "motion statistics" not in baseline_encoders(still, seed=0)


def test_tokens_that_do_not_divide_the_frames_are_refused() -> None:
    with pytest.raises(LayerlockError, match="3 tokens in time do not divide 8 frames"):
        PixelEncoder(ClipShape(frames=8, stride=1, size=24), (3, 3, 3))
