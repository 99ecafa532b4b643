"""Baselines are encoders like any other."""

from __future__ import annotations

import pytest
import torch
from evaluations import clips, tiny_encoder

from layerlock.encoders.checks import check_features, fingerprint
from layerlock.errors import LayerlockError
from layerlock.evaluation.baselines import POSITION, DifferenceEncoder, PixelEncoder, baseline_encoders
from layerlock.model.encoder import ClipShape


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
    for encoder in made.values():
        check_features(encoder, torch.device("cpu"))
        assert (encoder.clip, encoder.grid) == (ours.clip, ours.grid)
    assert made["random weights"].depth == ours.depth
    assert len({fingerprint(encoder) for encoder in (ours, *made.values())}) == 4
    assert fingerprint(ours) == fingerprint(tiny_encoder())


def test_tokens_that_do_not_divide_the_frames_are_refused() -> None:
    with pytest.raises(LayerlockError, match="3 tokens in time do not divide 8 frames"):
        PixelEncoder(ClipShape(frames=8, stride=1, size=24), (3, 3, 3))
